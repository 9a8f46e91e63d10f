"""`Workload`: what is asked of a model on a cluster."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from gnomon.errors import LayoutError, nearest_divisors
from gnomon.spec._noun import Noun

Precision = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4", "int8"]
TRAINED_PRECISIONS = ("fp32", "bf16")  # those that gnomon's own loop runs


class Workload(Noun):
    """A training step. What a precision means for weights and optimizer is the `stack`'s to say (`StackSpec`)."""

    seq_len: PositiveInt = Field(description="tokens of a sequence: of the decoder's, of the patches of an image")
    encoder_seq_len: PositiveInt | None = Field(default=None, description="tokens that an encoder reads per sequence")
    global_batch: PositiveInt = Field(description="sequences per optimizer step, over all ranks")
    micro_batch: PositiveInt = Field(default=0, description="sequences per forward pass and rank; default: all at once")
    precision: Precision = "fp32"
    attention_mask: Literal["causal", "full"] = Field(
        default="causal", description="causal counts half the attention FLOPs of full"
    )
    gradient_clipping: bool = True
    stack: str = Field(
        default="gnomon", description="training software: a name of the catalog's stacks, or a file that describes one"
    )
    attention_kernel: Literal["flash", "unfused"] | None = Field(default=None, description="default: the stack's")
    dropout: bool = Field(default=False, description="dropout after attention and feed-forward: masks to keep")
    expert_imbalance: float = Field(default=1.0, ge=1.0, description="tokens of the busiest expert over the mean")
    capacity_factor: float | None = Field(
        default=None, gt=0.0, description="experts drop tokens beyond this multiple of the mean; default: none dropped"
    )

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("micro_batch") is None and "global_batch" in data:
            return {**data, "micro_batch": data["global_batch"]}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.global_batch % self.micro_batch:
            raise ValueError(
                f"global_batch={self.global_batch} does not divide by micro_batch={self.micro_batch}; "
                f"the nearest values that do: {nearest_divisors('micro_batch', self.micro_batch, self.global_batch)}"
            )
        return self

    @property
    def tokens_per_step(self) -> int:
        """Tokens per optimizer step, over all ranks; those that an encoder reads are not among them."""
        return self.global_batch * self.seq_len

    def accumulation(self, dp: int) -> int:
        """Return the micro-batches per step and rank; raise LayoutError when the batch does not divide."""
        per_pass = self.micro_batch * dp
        if self.global_batch % per_pass:
            raise LayoutError(
                f"global_batch={self.global_batch} does not divide by micro_batch={self.micro_batch} x dp={dp} = "
                f"{per_pass}. Set global_batch to {_nearest_multiple(self.global_batch, per_pass)}, "
                f"or {nearest_divisors('dp', dp, self.global_batch // self.micro_batch)}."
            )
        return self.global_batch // per_pass


def _nearest_multiple(value: int, base: int) -> int:
    return max(base, round(value / base) * base)
