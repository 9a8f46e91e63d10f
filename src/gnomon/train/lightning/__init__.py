"""Lightning: modules under our loop, strategies and trackers, or Lightning's own loop in our run directory."""

from __future__ import annotations

from gnomon.train.lightning.bridge import LightningModuleTrainer
from gnomon.train.lightning.own_loop import LightningTrainer
from gnomon.train.lightning.settings import LightningConfig

__all__ = ["LightningConfig", "LightningModuleTrainer", "LightningTrainer"]
