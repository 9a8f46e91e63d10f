"""A LightningModule under our loop, strategies and trackers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from gnomon.data.fetch import PaddedBatch
from gnomon.data.resumable import ResumableLoader
from gnomon.errors import ConfigError, DataError
from gnomon.train.agreement import StopAgreement
from gnomon.train.batches import count_samples, move
from gnomon.train.callbacks import Callback
from gnomon.train.lightning.library import as_module
from gnomon.train.lightning.module_checks import check_module, read_optimizers, with_index
from gnomon.train.lightning.stand_in import TrainerStandIn
from gnomon.train.loaders import as_dataset, create_step_loader
from gnomon.train.precision import in_precision
from gnomon.train.scheduler import PlateauScheduler, ResumableScheduler
from gnomon.train.supervised_settings import SupervisedConfig
from gnomon.train.trainer import Trainer

if TYPE_CHECKING:
    from gnomon.train.lightning.collected import Collected

_THE_MODULES = ("learning_rate", "lr_schedule", "min_learning_rate_ratio", "warmup_steps", "weight_decay", "betas")


class LightningModuleTrainer(Trainer):
    """Trains a LightningModule: its steps, its one optimizer and scheduler, and what it logs.

    Called are `setup`, `configure_model`, `configure_optimizers`, `training_step`, `validation_step` and the hooks
    `on_train_start`, `on_train_end` and `on_validation_epoch_start`/`_end`; a module that needs more is refused.
    What `self.log` is given is averaged over the steps between two rows and over all ranks.
    """

    config: SupervisedConfig
    _collected: Collected
    _batch_index = 0

    def __init__(
        self,
        config: Mapping[str, Any] | SupervisedConfig,
        model: Any,
        num_workers: int = 0,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        settings = config if isinstance(config, SupervisedConfig) else SupervisedConfig.from_mapping(config, "config")
        _check_settings(settings)
        super().__init__(settings, callbacks)
        self._settings = settings
        self._model = model
        self._num_workers = num_workers

    def execute(self, train: Any, validation: Any = None, test: Any = None) -> tuple[Any, Any, Any, Any]:
        """Train, evaluate on `test` at the end if there is one, and return (train, validation, test, trained module).

        Raises what `Trainer.run` raises, and ConfigError for a module that our loop cannot train.
        """
        self._train, self._validation, self._test = (as_dataset(each) for each in (train, validation, test))
        if self._train is None:
            raise DataError("The trainer was given no training data (None). The step before must return a dataset.")
        self.config = self._settings.for_examples(len(self._train))
        if self.config.eval_every and self._validation is None:
            raise ConfigError(
                f"eval_every={self.config.eval_every}, but there are no validation data. Set eval_every=0."
            )
        self.run()
        return train, validation, test, self.module

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in a pass over the training data."""
        return len(self._train) // self.config.batch

    def create_model(self) -> nn.Module:
        """Return the module, set up for fitting."""
        module: Any = as_module(self._model)
        check_module(module)
        module.trainer = TrainerStandIn(self)
        module.setup("fit")
        module.configure_model()
        result: nn.Module = module
        return result

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Return the module's optimizer."""
        module: Any = self.module
        optimizer, self._lr_scheduler = read_optimizers(module.configure_optimizers())
        return optimizer

    def create_scheduler(self) -> LRScheduler:
        """Return the module's scheduler, or one that leaves the learning rates as they are."""
        if self._lr_scheduler is None:
            return LambdaLR(self.optimizer, lambda step: 1.0)
        self.plateau_metric = self._lr_scheduler.get("monitor")
        scheduler: LRScheduler = self._lr_scheduler["scheduler"]
        return scheduler

    def create_loader(self) -> ResumableLoader:
        """Return this rank's micro-batches of the training data, dealt anew each epoch."""
        accumulation, workers = self.config.accumulation, self._num_workers
        return create_step_loader(
            self._train, self.config, self.strategy, accumulation=accumulation, num_workers=workers
        )

    def create_evaluation_loader(self) -> ResumableLoader | None:
        """Return this rank's micro-batches of the validation data, each sample exactly once over all ranks."""
        return None if self._validation is None else self._evaluation_loader(self._validation)

    def training_step(self, batch: Any) -> Tensor:
        """Return the loss that the module's `training_step` returns, computed through the strategy's wrapper."""
        step: Any = self.module.training_step
        self._collected.samples = count_samples(batch)
        output = self._through_wrapper(step, with_index(step, batch, self._batch_index))
        self._batch_index = (self._batch_index + 1) % self._batches_per_epoch
        return _loss(output, "training_step")

    def samples_per_step(self) -> int:
        """Return the global batch."""
        return self.config.batch

    def identity(self) -> dict[str, Any]:
        """Return seed, batch and the number of training samples."""
        return {**super().identity(), "batch": self.config.batch, "samples": len(self._train)}

    # What the loop does

    @property
    def _batches_per_epoch(self) -> int:
        return self.steps_per_epoch * self.config.accumulation

    def setup(self) -> None:
        """Build everything, and collect what the module logs from now on."""
        from gnomon.train.lightning.collected import Collected

        super().setup()
        if self._lr_scheduler is not None and not isinstance(self._scheduler, PlateauScheduler):
            every = int(self._lr_scheduler.get("frequency", 1))
            every *= self.steps_per_epoch if self._lr_scheduler.get("interval", "epoch") == "epoch" else 1
            self._scheduler = _EverySoManySteps(self._lr_scheduler["scheduler"], every)
        world_size = self.strategy.environment.world_size
        self._collected = Collected(self.module, self.strategy.collectives, world_size)
        module: Any = self.module
        module.log, module.log_dict = self._collected.log, self._collected.log_dict

    def train(self, stop: StopAgreement) -> None:
        """Run the steps that are left, between the module's hooks."""
        module: Any = self.module
        self._batch_index = self.step * self.config.accumulation % self._batches_per_epoch
        module.on_train_start()
        super().train(stop)
        module.on_train_end()

    def on_trained(self) -> None:
        """Evaluate on the test data with `validation_step` and log the result."""
        if self._test is not None:
            self.report(self.evaluate(self._evaluation_loader(self._test), "test_"))

    def teardown(self) -> None:
        """Let go of the module, too."""
        super().teardown()
        if hasattr(self, "module"):
            for name in ("log", "log_dict"):
                self.module.__dict__.pop(name, None)
            self.module._trainer = None  # type: ignore[assignment]

    def report(self, row: Mapping[str, Any]) -> None:
        """Give the trackers a row, a training row with what the module has logged since the last one."""
        super().report({**row, **self._collected.compute()} if "loss" in row else row)

    @torch.no_grad()
    def evaluate(self, batches: Any = None, prefix: str = "eval_") -> dict[str, float]:
        """Return what the module logs during a pass over the batches, and `prefix`loss if its step returns one.

        Test figures have the prefix, too. Raises ConfigError if there is nothing at all.
        """
        from gnomon.train.lightning.collected import Collected

        module: Any = self.module
        during_training, stand_in = self._collected, module.trainer
        self._collected = Collected(self.module, self.strategy.collectives, self.strategy.environment.world_size)
        module.log, module.log_dict = self._collected.log, self._collected.log_dict
        stand_in.training, stand_in.validating = False, True
        self.model.eval()
        try:
            with self._evaluated_weights():
                module.on_validation_epoch_start()
                for index, batch in enumerate(self._limited(batches)):
                    self._validate(batch, index, f"{prefix}loss")
                module.on_validation_epoch_end()
            found = self.checked(self._collected.compute(), f"{prefix}loss")
        finally:
            self.model.train()
            stand_in.training, stand_in.validating = True, False
            self._collected = during_training
            module.log, module.log_dict = during_training.log, during_training.log_dict
        if not found:
            raise ConfigError(
                f"validation_step of {type(module).__name__} neither returned a loss nor logged anything."
            )
        return found if prefix == "eval_" else {_prefixed(name, prefix): value for name, value in found.items()}

    def _limited(self, batches: Any) -> Iterator[Any]:
        if batches is None:
            return islice(self._evaluation_batches(), self.config.eval_batches)
        return iter(batches)

    def _validate(self, batch: PaddedBatch, index: int, name: str) -> None:
        samples = count_samples(batch)
        if not samples and not self.strategy.gathers_weights:
            return
        step: Any = self.module.validation_step
        self._collected.samples = samples
        chosen = move(_only_valid(batch.samples, batch.valid) if samples else batch.samples, self.device)
        call = self._through_wrapper if self.strategy.gathers_weights else _plainly
        arguments = with_index(step, chosen, index)
        # a rank with nothing but filling passes it through the weights that the others wait for, and forgets it
        with nullcontext() if samples else self._collected.unchanged():
            output: Any = in_precision(lambda given: call(step, given), self.config.precision, self.device)(arguments)
            if output is not None:
                self._collected.log(name, _loss(output, "validation_step"))

    def _evaluation_loader(self, dataset: Any) -> ResumableLoader:
        return create_step_loader(dataset, self.config, self.strategy, accumulation=1, shuffle=False, last="pad")

    def _through_wrapper(self, step: Any, arguments: tuple[Any, ...]) -> Any:
        """Call `step` where the wrapper calls `forward`, so that the wrapper sees the pass (as Lightning does it)."""
        with _forward_is(self.module, step):
            return self.model(*arguments)


class _EverySoManySteps(ResumableScheduler):
    """A scheduler that is stepped once per so many optimizer steps."""

    def __init__(self, scheduler: LRScheduler, every: int) -> None:
        super().__init__(scheduler)
        self._every = every
        self._count = 0

    def step(self) -> None:
        self._count += 1
        if self._count % self._every == 0:
            super().step()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self._count, "scheduler": super().state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._count = state["count"]
        super().load_state_dict(state["scheduler"])


def _plainly(step: Any, arguments: tuple[Any, ...]) -> Any:
    return step(*arguments)


@contextmanager
def _forward_is(module: nn.Module, step: Any) -> Iterator[None]:
    """Let the next call of the module run `step`, in which `forward` is what it was."""

    def redirected(*arguments: Any) -> Any:
        module.__dict__.pop("forward", None)
        return step(*arguments)

    module.__dict__["forward"] = redirected
    try:
        yield
    finally:
        module.__dict__.pop("forward", None)


def _loss(output: Any, where: str) -> Tensor:
    loss = output.get("loss") if isinstance(output, dict) else output
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ConfigError(
            f"{where} returned {type(output).__name__}; return the loss, a tensor of one number, or a mapping with "
            "'loss'. A step cannot be left out here."
        )
    return loss.reshape(())


def _only_valid(samples: Any, valid: Tensor) -> Any:
    """Return the samples without those that only fill the batch up."""
    if bool(valid.all()):
        return samples
    if isinstance(samples, Tensor):
        return samples[valid]
    if isinstance(samples, dict):
        return {key: _only_valid(value, valid) for key, value in samples.items()}
    if isinstance(samples, list | tuple):
        kept = [_only_valid(value, valid) for value in samples]
        return type(samples)(*kept) if hasattr(samples, "_fields") else type(samples)(kept)
    return samples


def _prefixed(name: str, prefix: str) -> str:
    return name if name.startswith(prefix) else prefix + name.removeprefix("val_")


def _check_settings(config: SupervisedConfig) -> None:
    """Raise ConfigError for settings that the module decides, and for those that its bridge cannot honour."""
    given = [name for name in _THE_MODULES if name in config.model_fields_set]
    if given:
        raise ConfigError(
            f"config sets {', '.join(given)}, but configure_optimizers of the module decides that. Set it there, and "
            "leave it out here."
        )
    if config.compile:
        raise ConfigError("compile=true does not reach a LightningModule here. Call torch.compile in configure_model.")
