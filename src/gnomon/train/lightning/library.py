"""Lightning, imported when it is needed."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from gnomon.errors import ConfigError


def lightning() -> Any:
    """Return the module lightning.pytorch; raise ConfigError when it is not installed or does not load."""
    try:
        return importlib.import_module("lightning.pytorch")
    except ImportError as error:
        name = error.name or ""
        found = "is not installed" if name == "lightning" else f"does not load ({error})"
        raise ConfigError(f"This trainer needs Lightning, which {found}: pip install 'gnomon[lightning]'.") from None


def as_module(model: Any) -> Any:
    """Return the LightningModule, made if `model` is a function; raise ConfigError for anything else."""
    module_class = lightning().LightningModule
    module = model() if callable(model) and not isinstance(model, nn.Module) else model
    if not isinstance(module, module_class):
        raise ConfigError(
            f"model is a {type(module).__name__}, not a LightningModule from `lightning.pytorch`. Give one, or a "
            "function that makes one; for any other network there is gnomon.train.supervised.SupervisedTrainer."
        )
    return module
