"""Predictions for a whole dataset on any number of ranks: all of them, once each, in the dataset's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gnomon.component import Predictor
from gnomon.data.fetch import PaddedBatch
from gnomon.data.ids import sample_ids
from gnomon.data.resumable import create_loader
from gnomon.errors import ConfigError, DataError, GnomonError, did_you_mean
from gnomon.runtime.devices import resolve_device
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.base import Strategy
from gnomon.strategy.collectives import copy_from_rank_zero
from gnomon.strategy.registry import create_strategy
from gnomon.train.agreement import on_main_rank
from gnomon.train.batches import move
from gnomon.train.loaders import as_dataset
from gnomon.train.precision import in_precision
from gnomon.train.predictions import Predictions, check_ending, place, transform_of

Model = nn.Module | Callable[[], nn.Module]
_REPLICATING = ("auto", "single", "ddp", "horovod")
_SLICE_BYTES = 64 * 2**20
"""So many bytes of each rank's predictions are gathered at a time, on the device that computes."""


class DistributedPredictor(Predictor):
    """Runs a model over a dataset and returns `Predictions` on every rank, the same on any number of them.

    `model` is a module or makes one when called, such as a `ModelLoader`; every rank holds all of it, with rank 0's
    weights. Of a sample that is a tuple the first entry goes into the model; of a dict, the entry `input_key`.
    `kind` and `threshold` say what is made of the outputs: see `transform_of`. `output` is a Parquet or CSV file for
    rank 0 to write, by its ending. Override `predict_step` for a model that is called in another way.
    """

    def __init__(
        self,
        model: Model | None = None,
        kind: Literal["raw", "multiclass", "multilabel", "regression"] = "raw",
        threshold: float = 0.5,
        input_key: str | None = None,
        micro_batch: int = 64,
        num_workers: int = 0,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        strategy: str = "auto",
        precision: Literal["fp32", "bf16"] = "fp32",
        output: str | None = None,
    ) -> None:
        super().__init__(model)
        if strategy not in _REPLICATING:
            raise ConfigError(
                f"strategy='{strategy}', but prediction copies the model to every rank. "
                f"{did_you_mean(strategy, _REPLICATING)}"
            )
        if precision not in ("fp32", "bf16"):
            raise ConfigError(f"precision='{precision}' is unknown. {did_you_mean(precision, ('fp32', 'bf16'))}")
        self._transform = transform_of(kind, threshold)
        self.input_key = input_key
        self.micro_batch = micro_batch
        self.num_workers = num_workers
        self.device = device
        self.strategy = strategy
        self.precision = precision
        if output is not None:
            check_ending(output)
        self.output = output

    def execute(self, dataset: Any, model: Model | None = None) -> Predictions:
        """Return the predictions for all samples of `dataset`, which may be an array or a pair as for the trainers.

        `model` is used instead of the one in the settings.

        Raises ConfigError without a model, DataError for samples or outputs that are not as described, on every rank
        alike, and what the strategy raises when the ranks do not find each other.
        """
        environment = RankEnvironment.detect()
        device = resolve_device(self.device, environment.local_rank)
        strategy = create_strategy(self.strategy, environment, device)
        try:
            strategy.setup()
            return self._predict(as_dataset(dataset), model if model is not None else self.model, strategy)
        finally:
            strategy.teardown()

    def predict_step(self, model: nn.Module, samples: Any) -> Tensor:
        """Return the outputs (micro_batch, ...) for the collated samples of a micro-batch, without gradients."""
        return model(self._select(samples))

    def _predict(self, dataset: Any, model: Model | None, strategy: Strategy) -> Predictions:
        module, loader = _agree(strategy, lambda: (_make(model), self._create_loader(dataset, strategy)))
        lengths = strategy.collectives.gather_objects(len(dataset))
        if len(set(lengths)) > 1:
            raise DataError(f"The ranks were given datasets of different lengths: {lengths}. Give all the same one.")
        module = module.to(strategy.device)
        copy_from_rank_zero([*module.parameters(), *module.buffers()], strategy.collectives)
        with _evaluating(module):
            rows, valid, indices = _agree(strategy, lambda: self._run(module, loader, strategy.device))
        parts, places, kept = (_gather(part, strategy) for part in (rows, indices, valid))
        values = place(parts, places, kept, len(dataset))
        ids = _agree(strategy, lambda: sample_ids(dataset, range(len(dataset))))
        predictions = Predictions(values, ids)
        if self.output is not None:
            path = self.output
            on_main_rank(strategy, lambda: _write(predictions, path))
        return predictions

    def _create_loader(self, dataset: Any, strategy: Strategy) -> Any:
        shard, shards = strategy.data_shard
        return create_loader(
            dataset,
            global_batch=self.micro_batch * shards,
            micro_batch=self.micro_batch,
            rank=shard,
            world_size=shards,
            shuffle=False,
            last="pad",
            num_workers=self.num_workers,
            pin_memory=strategy.device.type == "cuda",
        )

    @torch.inference_mode()
    def _run(self, module: nn.Module, loader: Any, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return this rank's predictions, which of them count, and where they belong."""
        forward = in_precision(lambda samples: self.predict_step(module, samples), self.precision, device)
        rows: list[Tensor] = []
        valid: list[Tensor] = []
        indices: list[Tensor] = []
        for batch in loader:
            assert isinstance(batch, PaddedBatch)  # because of last="pad"
            outputs = forward(move(batch.samples, device))
            _check_outputs(outputs, len(batch.valid))
            rows.append(self._transform(outputs).cpu())
            valid.append(batch.valid)
            indices.append(batch.indices)
        return torch.cat(rows), torch.cat(valid), torch.cat(indices)

    def _select(self, samples: Any) -> Any:
        if isinstance(samples, Mapping):
            if self.input_key is None:
                raise ConfigError(f"A sample is a dict with {', '.join(samples)}. Set input_key to the model's input.")
            if self.input_key not in samples:
                raise ConfigError(
                    f"input_key='{self.input_key}' is not in the samples. {did_you_mean(self.input_key, samples)}"
                )
            return samples[self.input_key]
        if self.input_key is not None:
            raise ConfigError(f"input_key='{self.input_key}', but a sample is no dict. Leave input_key out.")
        return samples[0] if isinstance(samples, tuple | list) else samples


def _make(model: Model | None) -> nn.Module:
    """Return the module to predict with; raise ConfigError for none or one that is split over ranks."""
    if model is None:
        raise ConfigError("There is no model to predict with. Set model, or give it as the second input.")
    module = model if isinstance(model, nn.Module) else model()
    if not isinstance(module, nn.Module):
        raise ConfigError(f"model made a {type(module).__name__}; a torch.nn.Module is needed.")
    if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
        raise ConfigError(
            "The model is split over the ranks of its training. Load it whole from its checkpoint: "
            "model={_target_: gnomon.train.model_loader.ModelLoader, source: runs/NAME, model: ...}."
        )
    return module


def _check_outputs(outputs: Any, count: int) -> None:
    """Raise DataError unless there is one row of outputs per sample."""
    if not isinstance(outputs, Tensor):
        raise DataError(
            f"The model returned a {type(outputs).__name__}; a tensor is needed. Override predict_step to take one."
        )
    if not outputs.dim() or len(outputs) != count:
        raise DataError(
            f"The model returned shape {tuple(outputs.shape)} for {count} samples; one row per sample is needed."
        )


def _agree(strategy: Strategy, work: Callable[[], Any]) -> Any:
    """Do `work` on every rank; the first GnomonError of any rank is raised on all, so that none waits for another."""
    result, error = None, None
    try:
        result = work()
    except GnomonError as caught:
        error = caught
    errors = strategy.collectives.gather_objects(error)
    for found in errors:
        if found is not None:
            raise found
    return result


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part of the module into evaluation mode, and back into the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def _write(predictions: Predictions, path: str) -> None:
    try:
        predictions.write(path)
    except OSError as error:
        raise ConfigError(f"output='{path}' cannot be written: {error.strerror}. Choose another place.") from None


def _gather(rows: Tensor, strategy: Strategy) -> list[Tensor]:
    """Return the rows of every rank, on the CPU; as bytes, because not every backend carries every type."""
    content = rows.reshape(len(rows), rows[0].numel()).contiguous().view(torch.uint8)
    per_slice = max(1, _SLICE_BYTES // max(1, content.shape[1]))
    slices = [
        [part.cpu() for part in strategy.collectives.all_gather(content[start : start + per_slice].to(strategy.device))]
        for start in range(0, len(content), per_slice)
    ]
    parts = [torch.cat(pieces) for pieces in zip(*slices, strict=True)]
    return [part.view(rows.dtype).reshape(rows.shape) for part in parts]
