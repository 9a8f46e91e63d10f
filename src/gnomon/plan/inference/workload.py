"""`InferenceWorkload`: what is asked of a served model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from gnomon.spec import Noun

InferencePrecision = Literal["fp32", "bf16", "fp16", "fp8", "int8", "fp4"]
CachePrecision = Literal["fp32", "bf16", "fp16", "fp8", "int8"]
# 4-bit blocks of 32 elements share one 8-bit scale (OCP Microscaling Formats, MXFP4); scales of 8-bit are negligible
STORED_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5 + 1.0 / 32.0}
OPERAND_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5}


class InferenceWorkload(Noun):
    """Requests of one length. `batch` and `prefill_batch` count sequences of one replica (of `dp`)."""

    prompt_len: PositiveInt = Field(description="tokens of a prompt")
    output_len: PositiveInt = Field(description="tokens generated for it")
    batch: PositiveInt = Field(default=1, description="sequences that a replica decodes together")
    prefill_batch: PositiveInt = Field(default=1, description="prompts that are prefilled together")
    compute_precision: InferencePrecision = Field(default="bf16", description="of the layers' products")
    weight_precision: InferencePrecision = Field(
        default="bf16",
        description="of the layers' matrices; default: compute_precision. Embedding, head and norms keep 16 bits",
    )
    kv_precision: CachePrecision = Field(default="bf16", description="default: compute_precision, but at least 16 bits")
    memory_fraction: float = Field(default=0.9, gt=0.0, le=1.0, description="of the device's memory that may be used")
    expert_imbalance: float = Field(default=1.0, ge=1.0, description="tokens of the busiest expert over the mean")

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        compute = data.get("compute_precision") or "bf16"
        wide = compute if compute in ("fp32", "fp16") else "bf16"
        derived = {"weight_precision": compute, "kv_precision": wide}
        return {**data, **{key: value for key, value in derived.items() if data.get(key) is None}}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if OPERAND_BYTES[self.weight_precision] > OPERAND_BYTES[self.compute_precision]:
            raise ValueError(
                f"weight_precision={self.weight_precision} is wider than compute_precision={self.compute_precision}; "
                f"set weight_precision={self.compute_precision}, or compute in {self.weight_precision}"
            )
        return self

    @property
    def total_len(self) -> int:
        """Tokens of a finished sequence."""
        return self.prompt_len + self.output_len

    @property
    def mean_context(self) -> float:
        """Mean number of tokens that a decode step attends to: the first output token comes from the prefill."""
        return self.prompt_len + max(self.output_len, 2) / 2.0

    @property
    def wide_precision(self) -> Literal["fp32", "bf16", "fp16"]:
        """Precision of activations, attention, norms and the head."""
        return self.compute_precision if self.compute_precision in ("fp32", "fp16") else "bf16"
