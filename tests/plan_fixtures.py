"""Hardware with constant rates, so that every time can be worked out by hand. It is a fake."""

from gnomon.spec import (
    AcceleratorSpec,
    ClusterSpec,
    Efficiency,
    GridCurve,
    ModelSpec,
    NetworkTier,
    SizeCurve,
)

TINY = ModelSpec(name="tiny", num_layers=2, hidden_size=64, num_heads=2, vocab_size=256, max_seq_len=128)
MATMUL_RATE, ATTENTION_RATE, MEMORY_RATE = 1e12, 5e11, 1e11


def constant_cluster(**changes) -> ClusterSpec:
    efficiency = Efficiency(
        matmul={"default": GridCurve.constant(MATMUL_RATE, 3)},
        attention={"default": GridCurve.constant(ATTENTION_RATE, 2)},
        memory={"default": SizeCurve.constant(changes.pop("memory_rate", MEMORY_RATE))},
        dispatch_forward_s=changes.pop("dispatch_s", 0.0),
        dispatch_backward_s=0.0,
        asynchronous=changes.pop("asynchronous", False),
        communication_overlap=changes.pop("overlap", 0.0),
        collectives=changes.pop("collectives", {}),
    )
    fields = {
        "name": "constant",
        "accelerator": AcceleratorSpec(name="constant", peak_flops={"fp32": 2e12}, memory_bytes=1e12),
        "accelerators_per_node": 8,
        "tiers": (NetworkTier(name="link", span=8, bandwidth_bytes_per_s=1e9, latency_s=1e-6),),
        "efficiency": efficiency,
    }
    return ClusterSpec(**{**fields, **changes})
