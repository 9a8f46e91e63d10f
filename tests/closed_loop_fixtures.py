"""Machines with invented but uneven curves, and models of several styles, for the frozen plans of the closed loop."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from gnomon.plan.traffic import memory_key, memory_keys
from gnomon.spec import (
    AcceleratorSpec,
    ClusterSpec,
    CollectiveCurve,
    Efficiency,
    GridCurve,
    Layout,
    ModelSpec,
    NetworkTier,
    SizeCurve,
    Workload,
)

LLAMA = {
    "norm": "rmsnorm",
    "position": "rope",
    "gated_mlp": True,
    "activation": "silu",
    "num_kv_heads": 2,
    "ffn_hidden_size": 704,
    "tied_embeddings": False,
}
BIASES = {"norm_bias": True, "attention_bias": True, "attention_output_bias": True, "mlp_bias": True}
STYLES = {
    "gpt2": {**BIASES, "activation": "gelu_tanh"},
    "gpt2 untied, without biases": {"tied_embeddings": False},
    "llama": LLAMA,
    "llama tied, with qk_norm": {**LLAMA, "qk_norm": True, "tied_embeddings": True},
    "no positions, wide vocabulary": {"position": "none", "vocab_size": 4096, "activation": "relu"},
}
RUNS = {
    "one rank": (Layout(), 4),
    "accumulation": (Layout(), 12),
    "two ranks": (Layout(dp=2), 8),
    "four ranks, accumulation": (Layout(dp=4), 32),
}
MACHINES = ("cpu", "gpu", "gpu with a slow host")


def machine(name: str, ranks: int) -> ClusterSpec:
    """Return a machine whose every curve bends differently, so that no two operators are priced alike by chance.

    Its all-reduce over four ranks takes longer than a backward pass.
    """
    phases, precisions = ("forward", "grad_input", "grad_weight"), ("fp32", "bf16")
    axes = ((64.0, 1024.0), (64.0, 512.0, 4096.0), (64.0, 4096.0))
    products = {
        f"{precision}.{phase}": GridCurve(axes=axes, rate=tuple(1e10 * (1 + 0.37 * i + 0.11 * j) for i in range(12)))
        for j, (precision, phase) in enumerate(itertools.product(precisions, phases))
    }
    attention = {
        f"{precision}.{phase}": GridCurve(axes=((32.0, 512.0), (32.0, 128.0)), rate=(1e9, 3e9, 4e9 + j, 9e9 + 1e9 * j))
        for j, (precision, phase) in enumerate(itertools.product(precisions, ("forward", "backward")))
    }
    memory = {
        memory_key(name, precision): SizeCurve(
            size=(2.0**12, 2.0**17 + 1000 * j, 2.0**24), rate=(1e9 + 3e7 * j, 8e9 - 5e7 * j, 2e9 + 1e8 * j)
        )
        for j, (name, precision) in enumerate(memory_keys(precisions))
    }
    memory["data"] = SizeCurve(size=(1e3, 1e6), rate=(4e7, 9e7))
    slower = 1.0 if ranks == 2 else 60.0
    bandwidth = SizeCurve(size=(1e4, 1e8), rate=(2e8 / slower, 3e9 / slower))
    collective = CollectiveCurve(ranks=max(ranks, 2), latency_s=9e-5, bandwidth=bandwidth)
    kind = name.split()[0]
    return ClusterSpec(
        name="invented",
        accelerator=AcceleratorSpec(
            name="invented", kind=kind, peak_flops={"fp32": 1e12, "bf16": 2e12}, memory_bytes=5e9
        ),
        accelerators_per_node=4,
        tiers=(NetworkTier(name="node", span=4, bandwidth_bytes_per_s=7e9, latency_s=3e-6),),
        efficiency=Efficiency(
            matmul=products,
            attention=attention,
            memory=memory,
            collectives={"all_reduce": collective},
            dispatch_forward_s=2e-2 if "slow" in name else 1.3e-5,
            dispatch_backward_s=0.9e-5,
            dispatch_optimizer_s=2.1e-5,
            asynchronous=kind == "gpu",
            communication_overlap=0.6,
            framework_bytes=3.1e8,
            allocator_overhead=0.07,
        ),
    )


def problems() -> Iterator[tuple[str, ModelSpec, ClusterSpec, Layout, Workload]]:
    """Yield (name, model, cluster, layout, workload) of every frozen plan."""
    for (style, changes), (run, (layout, batch)), precision, name in itertools.product(
        STYLES.items(), RUNS.items(), ("fp32", "bf16"), MACHINES
    ):
        sizes = {"num_layers": 3, "hidden_size": 256, "num_heads": 4, "vocab_size": 512, "max_seq_len": 256}
        model = ModelSpec.from_mapping({"name": style, **sizes, **changes})
        workload = Workload(
            seq_len=192, global_batch=batch, micro_batch=4, precision=precision, gradient_clipping=name == "cpu"
        )
        yield f"{style} | {run} | {precision} | {name}", model, machine(name, layout.dp), layout, workload
