"""What a LightningModule finds as `self.trainer` under our loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnomon.errors import ConfigError

if TYPE_CHECKING:
    from gnomon.train.lightning.bridge import LightningModuleTrainer


class TrainerStandIn:
    """Answers the questions about the run that modules ask most; anything else is a ConfigError."""

    sanity_checking = False
    progress_bar_callback = None

    def __init__(self, trainer: LightningModuleTrainer) -> None:
        self._trainer = trainer
        self.training = True
        self.validating = False
        self.max_steps = trainer.config.num_steps
        self.accumulate_grad_batches = trainer.config.accumulation
        environment = trainer.strategy.environment
        self.world_size, self.global_rank = environment.world_size, environment.rank
        self.local_rank, self.is_global_zero = environment.local_rank, environment.is_main

    @property
    def global_step(self) -> int:
        """Optimizer steps done."""
        return self._trainer.step

    @property
    def current_epoch(self) -> int:
        """Whole passes over the training data."""
        return self._trainer.step // self._trainer.steps_per_epoch

    @property
    def estimated_stepping_batches(self) -> int:
        """Optimizer steps of the whole run."""
        return self.max_steps

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise ConfigError(
            f"self.trainer.{name} is not there under gnomon's loop. Train the module with "
            "gnomon.train.lightning.LightningTrainer, which runs Lightning's own loop."
        )
