"""The training loop, its checkpoints and the models that it builds.

The names below are imported when they are first used, so that `import gnomon.train` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnomon.train.callbacks import Callback
    from gnomon.train.config import TrainingConfig
    from gnomon.train.gan import GANConfig, GANTrainer
    from gnomon.train.gpt_trainer import GPTTrainer
    from gnomon.train.lightning import LightningModuleTrainer, LightningTrainer
    from gnomon.train.supervised import SupervisedTrainer
    from gnomon.train.supervised_settings import SupervisedConfig
    from gnomon.train.trainer import Trainer

__all__ = [
    "Callback",
    "GANConfig",
    "GANTrainer",
    "GPTTrainer",
    "LightningModuleTrainer",
    "LightningTrainer",
    "SupervisedConfig",
    "SupervisedTrainer",
    "Trainer",
    "TrainingConfig",
]

_MODULES = {
    "Callback": "callbacks",
    "GANConfig": "gan",
    "GANTrainer": "gan",
    "GPTTrainer": "gpt_trainer",
    "LightningModuleTrainer": "lightning",
    "LightningTrainer": "lightning",
    "SupervisedConfig": "supervised_settings",
    "SupervisedTrainer": "supervised",
    "Trainer": "trainer",
    "TrainingConfig": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'gnomon.train' has no attribute '{name}'")
    return getattr(importlib.import_module(f"gnomon.train.{_MODULES[name]}"), name)
