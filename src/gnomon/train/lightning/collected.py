"""What a LightningModule logs with `self.log`, averaged over calls and ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from gnomon.errors import ConfigError
from gnomon.strategy.collectives import Collectives
from gnomon.train.evaluation import plain, synchronised

_REDUCTIONS = ("mean", "default")


class Collected:
    """Means of logged numbers since the last `compute`, weighted by the samples of each call; metrics as they are."""

    def __init__(self, module: nn.Module, collectives: Collectives, world_size: int) -> None:
        self._module = module
        self._collectives = collectives
        self._world_size = world_size
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, float] = {}
        self._metrics: dict[str, str] = {}
        self.samples = 1

    def log(self, name: str, value: Any, **options: Any) -> None:
        """Take a number, a tensor of one, or a metric that is an attribute of the module; as `LightningModule.log`."""
        if options.get("reduce_fx", "mean") not in _REDUCTIONS:
            raise ConfigError(
                f"self.log('{name}', reduce_fx={options['reduce_fx']!r}): only means are taken here. "
                "Log a torchmetrics metric instead, or train with LightningTrainer."
            )
        if isinstance(value, Metric):
            self._metrics[name] = self._path_of(name, value)
            return
        number = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
        if number.numel() != 1:
            raise ConfigError(f"self.log('{name}') was given a tensor of shape {tuple(number.shape)}; give one number.")
        weight = float(options.get("batch_size") or self.samples)
        before = self._sums.get(name)
        weighted = number.double().reshape(()) * weight  # nothing waits for a GPU before `compute`
        self._sums[name] = weighted if before is None else before + weighted
        self._weights[name] = self._weights.get(name, 0.0) + weight

    def log_dict(self, values: Mapping[str, Any], **options: Any) -> None:
        """Take several, as `LightningModule.log_dict`."""
        for name, value in values.items():
            self.log(name, value, **options)

    def compute(self) -> dict[str, float]:
        """Return all that was logged, the same on every rank, and begin anew; a collective call."""
        mine = {name: (total.item(), self._weights[name]) for name, total in self._sums.items()}
        ranks = self._collectives.gather_objects((mine, self._metrics))
        sums: dict[str, tuple[float, float]] = {}
        paths: dict[str, str] = {}
        for values, metrics in ranks:
            paths |= metrics
            for name, (total, weight) in values.items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = (before[0] + total, before[1] + weight)
        row = {name: total / weight for name, (total, weight) in sums.items()}
        for name, path in paths.items():
            metric: Any = self._module.get_submodule(path)
            synchronised(metric, self._collectives, self._world_size)
            row |= plain({name: metric.compute()}, "")
            metric.reset()
        self._sums, self._weights, self._metrics = {}, {}, {}
        return row

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Forget what is logged inside, and what the module's metrics take in."""
        before = dict(self._sums), dict(self._weights), dict(self._metrics)
        metrics = [each for each in self._module.modules() if isinstance(each, Metric)]
        states = [(metric, metric._copy_state_dict(), metric._update_count, metric._computed) for metric in metrics]
        try:
            yield
        finally:
            self._sums, self._weights, self._metrics = before
            for metric, state, count, computed in states:
                for name, value in state.items():
                    setattr(metric, name, value)
                metric._update_count, metric._computed = count, computed

    def _path_of(self, name: str, metric: Metric) -> str:
        for path, module in self._module.named_modules():
            if module is metric:
                return path
        raise ConfigError(
            f"self.log('{name}') was given a metric that is no attribute of the module, so the other ranks cannot find "
            "theirs. Assign it in __init__."
        )
