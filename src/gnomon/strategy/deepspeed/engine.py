"""DeepSpeed's engine as the module and the optimizer that a training loop calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class EngineModel(nn.Module):
    """Calls the engine, which calls `module`; parameters and buffers are those of `module`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        object.__setattr__(self, "inner", _InPrecisionOfCaller(module))
        object.__setattr__(self, "engine", None)  # it holds the module too, which would then be registered twice

    inner: _InPrecisionOfCaller
    engine: Any

    def attach(self, engine: Any) -> None:
        """Call this engine from now on."""
        object.__setattr__(self, "engine", engine)
        engine.train(self.training)

    def train(self, mode: bool = True) -> EngineModel:
        """Set the mode of the module and of its engine."""
        super().train(mode)
        if self.engine is not None:
            self.engine.train(mode)
        return self

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Return what the module returns, in the autocast of the caller."""
        device = next(self.module.parameters()).device.type
        self.inner.precision = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        return self.engine(*inputs, **options)


class _InPrecisionOfCaller(nn.Module):
    """Enters the autocast again that the engine leaves before it calls the module."""

    precision: tuple[str, torch.dtype, bool]

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **options: Any) -> Any:
        device, dtype, enabled = self.precision
        with torch.autocast(device, dtype=dtype, enabled=enabled):
            return self.module(*inputs, **options)


class EngineOptimizer(Optimizer):
    """The optimizer `basic`, whose groups and learning rates are in use, stepped by the engine."""

    def __init__(self, engine: Any, basic: Optimizer) -> None:  # the engine has replaced the parameters of `basic`
        self.engine = engine
        self.basic = basic
        self.defaults = basic.defaults
        self._norm: Tensor | None = None

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The groups in use: loading a state replaces them."""
        return self.basic.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The state in use."""
        return self.basic.state

    def norm_of_next_step(self, device: torch.device) -> Tensor:
        """Return a number, NaN for now, that the next step sets to the norm of the gradients before clipping."""
        self._norm = torch.full((), torch.nan, device=device)
        return self._norm

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Clip, step and forget the gradients."""
        self.engine.step()
        if self._norm is not None:
            self._norm.fill_(float(self.engine.get_global_grad_norm()))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: the step has forgotten the gradients."""
