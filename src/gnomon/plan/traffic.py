"""What each memory-bound operator must move: the one definition that the planner and the calibration share.

Bytes are the least that the operator can read and write, per element of its main tensor, with `c` bytes per
element in the compute dtype (autocast lowers matrix products, attention and activations, nothing else). What a
device achieves on that traffic is measured by `gnomon calibrate` and stored under the same key.
"""

from __future__ import annotations

from dataclasses import dataclass

FP32_BYTES = 4
COMPUTE_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class Traffic:
    """Bytes per element: `fixed` whatever the precision, plus multiples of the sizes of two dtypes.

    `per_compute_byte` times that of the compute dtype, `per_stream_byte` times that of the residual stream.
    """

    fixed: float = 0.0
    per_compute_byte: float = 0.0
    per_stream_byte: float = 0.0

    def bytes_per_element(self, precision: str) -> float:
        """Return the bytes moved for each element under autocast (an fp32 residual stream)."""
        return self.fixed + self.per_compute_byte * COMPUTE_BYTES[precision] + self.per_stream_byte * FP32_BYTES


ACTIVATIONS = ("gelu", "gelu_tanh", "silu", "relu")
NORMS = ("layernorm", "rmsnorm")

TRAFFIC: dict[str, Traffic] = {
    "copy": Traffic(per_compute_byte=2),
    "multiply": Traffic(per_compute_byte=3),
    "residual": Traffic(per_stream_byte=2, per_compute_byte=1),
    "gradient_add": Traffic(fixed=12),
    "cast_down": Traffic(fixed=6),
    "cast_up": Traffic(fixed=6),
    "rope": Traffic(per_compute_byte=12),
    "rope_backward": Traffic(per_compute_byte=16),
    "embedding": Traffic(fixed=8),
    "embedding_backward": Traffic(fixed=12),
    "cross_entropy": Traffic(fixed=8),
    "cross_entropy_backward": Traffic(fixed=8),
    "gradient_norm": Traffic(fixed=12),
    "adamw": Traffic(fixed=28),
}
for _name in ACTIVATIONS:
    TRAFFIC[_name] = Traffic(per_compute_byte=2)
    TRAFFIC[f"{_name}_backward"] = Traffic(per_compute_byte=3)
for _name in NORMS:
    TRAFFIC[_name] = Traffic(per_stream_byte=2)
    TRAFFIC[f"{_name}_backward"] = Traffic(per_stream_byte=3)

# kernels of other software stacks: priced at the rate of `copy` or a generation's constant, never measured here
OTHER_TRAFFIC: dict[str, Traffic] = {
    "stream_add": Traffic(per_stream_byte=3),
    "rope_fused": Traffic(per_compute_byte=2),
    "gate_fused": Traffic(per_compute_byte=3),
    "gate_fused_backward": Traffic(per_compute_byte=5),
    # Megatron-LM's vocab_parallel_cross_entropy: to fp32, maximum, difference, exponential, sum, quotient; and back
    "parallel_cross_entropy": Traffic(fixed=36, per_compute_byte=1),
    "parallel_cross_entropy_backward": Traffic(fixed=12, per_compute_byte=1),
    "softmax": Traffic(per_compute_byte=2),
    "softmax_backward": Traffic(per_compute_byte=3),
    "dropout": Traffic(fixed=1, per_compute_byte=2),
    "permute": Traffic(per_compute_byte=2),
    "quantize": Traffic(fixed=2, per_compute_byte=1),
    "optimizer": Traffic(fixed=1),
    "accumulate": Traffic(fixed=1),
}
# a kind that moves the same tensors as a measured one
SAME_CURVE = {"stream_add": "gradient_add"}

CASTS = ("cast_down", "cast_up")
PRECISION_DEPENDENT = tuple(kind for kind, traffic in TRAFFIC.items() if traffic.per_compute_byte)


def memory_key(kind: str, precision: str) -> str:
    """Return the key of a memory curve: the kind alone when its dtype never changes, else `kind.precision`."""
    return f"{kind}.{precision}" if kind in PRECISION_DEPENDENT else kind


def memory_keys(precisions: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the distinct (kind, precision) pairs to measure for these precisions."""
    seen: dict[str, tuple[str, str]] = {}
    for precision in precisions:
        for kind in TRAFFIC:
            if kind in CASTS and precision == "fp32":
                continue
            seen.setdefault(memory_key(kind, precision), (kind, precision))
    return list(seen.values())
