"""The problem that a probe of the calibration runs, as the planner's arrays, before any rate is known."""

from __future__ import annotations

from gnomon.plan.cases import Cases
from gnomon.spec import AcceleratorSpec, ClusterSpec, Efficiency, Layout, ModelSpec, Workload
from gnomon.spec.catalog import load_stack


def probe_cases(model: ModelSpec, *, device_type: str, seq_len: int, micro_batch: int, ranks: int = 1) -> Cases:
    """Return one fp32 training step of `model` with gnomon's own loop, on a device without rates."""
    nothing = Efficiency(
        matmul={}, attention={}, memory={}, dispatch_forward_s=0.0, dispatch_backward_s=0.0, asynchronous=False
    )
    kind = "gpu" if device_type == "cuda" else "cpu"
    machine = ClusterSpec(
        name="this machine",
        accelerator=AcceleratorSpec(name="this device", kind=kind),
        accelerators_per_node=ranks,
        efficiency=nothing,
    )
    workload = Workload(seq_len=seq_len, global_batch=micro_batch * ranks, micro_batch=micro_batch)
    return Cases.of(model, machine, Layout(dp=ranks), workload, load_stack(workload.stack))
