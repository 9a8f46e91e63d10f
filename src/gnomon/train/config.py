"""What a training run is told to do."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from gnomon.data.text import VOCAB_SIZE, TextData
from gnomon.errors import LayoutError
from gnomon.plan.own_loop import check_own_loop, check_split
from gnomon.spec import Layout, ModelSpec, Noun, Workload
from gnomon.track.registry import Trackers


class StrategySettings(BaseModel):
    """A strategy by name with its options: {name: fsdp, zero_stage: 2}."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str


class TrainingConfig(Noun):
    """The settings that every trainer has; intervals are in optimizer steps, and 0 turns a thing off."""

    run_dir: str
    num_steps: PositiveInt
    learning_rate: PositiveFloat = 1e-3
    lr_schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="after the warm-up")
    min_learning_rate_ratio: float = Field(default=0.1, ge=0.0, le=1.0, description="last over highest learning rate")
    warmup_steps: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    grad_clip: PositiveFloat | None = Field(default=1.0, description="largest norm of all gradients; None: no clipping")
    accumulation: PositiveInt = Field(default=1, description="micro-batches per optimizer step and rank")
    precision: Literal["fp32", "bf16", "fp16"] = Field(default="fp32", description="fp16 scales the loss")
    compile: bool = Field(default=False, description="compile the model with torch.compile")
    ema_decay: float | None = Field(default=None, gt=0.0, lt=1.0, description="evaluate an average of the weights")
    seed: int = Field(default=0, ge=0, lt=2**32)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    strategy: str | StrategySettings = "auto"
    log_every: NonNegativeInt = 10
    eval_every: NonNegativeInt = 0
    eval_batches: PositiveInt | None = Field(default=8, description="micro-batches per evaluation and rank; None: all")
    best_metric: str | None = Field(default=None, description="evaluation metric whose best checkpoint is kept")
    best_mode: Literal["min", "max"] = "min"
    early_stopping: NonNegativeInt = Field(default=0, description="evaluations without a better best_metric; 0: never")
    early_stopping_delta: NonNegativeFloat = Field(default=0.0, description="smallest change that counts as better")
    checkpoint_every: NonNegativeInt = 0
    async_checkpoints: bool = Field(default=False, description="write checkpoints while training goes on")
    keep_checkpoints: PositiveInt = Field(default=2, description="how many of the newest to keep")
    keep_every: NonNegativeInt = Field(default=0, description="keep those of every so many steps for good")
    resume: bool = Field(default=False, description="continue run_dir from its newest checkpoint, if there is one")
    progress: bool = Field(default=True, description="show a line of progress")
    trackers: Trackers = Field(default=(), description="where metrics go besides metrics.jsonl: names, or mappings")

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if self.warmup_steps > self.num_steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} exceeds num_steps={self.num_steps}; "
                f"set warmup_steps={self.num_steps // 10}"
            )
        return self

    @model_validator(mode="after")
    def _check_best(self) -> Self:
        if self.early_stopping and self.best_metric is None:
            raise ValueError(f"early_stopping={self.early_stopping}, but best_metric is not set; set it to eval_loss")
        if self.best_metric is not None and not self.eval_every:
            raise ValueError(f"best_metric={self.best_metric}, but eval_every=0; set eval_every to a number of steps")
        return self

    @property
    def strategy_name(self) -> str:
        """The strategy without its options."""
        return self.strategy if isinstance(self.strategy, str) else self.strategy.name

    @property
    def strategy_options(self) -> dict[str, Any]:
        """The options of the strategy; the strategy itself checks them."""
        return {} if isinstance(self.strategy, str) else dict(self.strategy.model_extra or {})


class GPTTrainingConfig(TrainingConfig):
    """A GPT on byte-level text. Accumulation, precision and whether to clip follow from the workload and the layout."""

    model: ModelSpec
    layout: Layout = Layout()
    workload: Workload
    data: TextData = TextData()
    peak_flops: PositiveFloat | None = Field(default=None, description="FLOP/s of one device; None: MFU unknown")

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        check_own_loop(self.layout, self.workload)
        if not self._needs_mesh:
            return self
        if self.strategy_name not in ("auto", "mesh"):
            raise LayoutError(
                f"The layout is {_describe(self.layout)}, but strategy={self.strategy_name} splits the batch only. "
                "Set strategy=mesh (or auto), or a layout with dp alone."
            )
        check_split(self.model, self.layout, self.workload)
        if self.compile:
            raise ValueError(f"compile=true with the layout {_describe(self.layout)} is not supported; leave it out")
        return self

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.model.vocab_size < VOCAB_SIZE:
            raise ValueError(
                f"model.vocab_size={self.model.vocab_size}, but byte-level text has {VOCAB_SIZE} tokens; "
                f"set it to {VOCAB_SIZE}"
            )
        if self.workload.attention_mask != "causal":
            raise ValueError(
                f"workload.attention_mask={self.workload.attention_mask}, but this trainer's attention is causal; "
                "set it to causal"
            )
        if self.workload.seq_len > self.model.max_seq_len:
            raise ValueError(
                f"workload.seq_len={self.workload.seq_len} exceeds model.max_seq_len={self.model.max_seq_len}; "
                "lower the first or raise the second"
            )
        return self

    @model_validator(mode="after")
    def _derive(self) -> Self:
        derived: dict[str, Any] = {
            "accumulation": self.workload.accumulation(self.layout.dp),
            "precision": self.workload.precision,
        }
        if not self.workload.gradient_clipping:
            derived["grad_clip"] = None
        elif self.grad_clip is None:
            raise ValueError("grad_clip is null but workload.gradient_clipping is true; set one or unset the other")
        for name, value in derived.items():
            if name in self.model_fields_set and getattr(self, name) != value:
                raise ValueError(
                    f"{name}={getattr(self, name)}, but the workload and the layout give {value}; leave {name} out"
                )
        self.__dict__.update(derived)  # the fields are frozen for everybody else
        return self

    @property
    def _needs_mesh(self) -> bool:
        return not self.layout.is_data_parallel

    @property
    def strategy_name(self) -> str:
        """The strategy without its options; `auto` is `mesh` where the layout splits more than the batch."""
        name = super().strategy_name
        return "mesh" if name == "auto" and self._needs_mesh else name

    @property
    def strategy_options(self) -> dict[str, Any]:
        """The options of the strategy, which for `mesh` are the layout and the precision."""
        options = super().strategy_options
        if self.strategy_name != "mesh":
            return options
        return {**options, "layout": self.layout, "precision": self.precision}


def _describe(layout: Layout) -> str:
    plain = Layout().to_mapping()
    return ", ".join(f"{name}={value}" for name, value in layout.to_mapping().items() if value != plain[name])
