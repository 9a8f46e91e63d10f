"""Settings of a run under Lightning's own loop."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gnomon.spec import Noun
from gnomon.track.registry import Trackers


class LightningConfig(Noun):
    """What every run has; intervals are in optimizer steps, and 0 turns a thing off.

    Exactly one of `num_steps` and `epochs` is given. What else `lightning.pytorch.Trainer` takes is given to
    `LightningTrainer` as `trainer`.
    """

    run_dir: str
    num_steps: NonNegativeInt = 0
    epochs: PositiveInt | None = None
    batch: PositiveInt = Field(default=32, description="examples per optimizer step, over all ranks")
    accumulation: PositiveInt = Field(default=1, description="micro-batches per optimizer step and rank")
    grad_clip: PositiveFloat | None = Field(default=None, description="largest norm of all gradients; None: none")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = Field(default=0, ge=0, lt=2**32)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    strategy: str = Field(default="auto", description="a strategy of Lightning; auto: ddp on several ranks")
    log_every: PositiveInt = 10
    eval_every: NonNegativeInt = Field(default=0, description="0: at the end of each epoch, if there are such data")
    checkpoint_every: NonNegativeInt = 0
    keep_checkpoints: PositiveInt = Field(default=2, description="how many of the newest to keep")
    resume: bool = Field(default=False, description="continue run_dir from its newest checkpoint, if there is one")
    progress: bool = Field(default=True, description="show a line of progress")
    trackers: Trackers = Field(default=(), description="trackers besides metrics.jsonl: names, or mappings with a name")

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if bool(self.num_steps) == (self.epochs is not None):
            found = f"num_steps={self.num_steps} and epochs={self.epochs}" if self.num_steps else "neither"
            raise ValueError(f"exactly one of num_steps and epochs is needed, found {found}")
        return self
