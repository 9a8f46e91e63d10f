"""A fake run for tests of the report: plausible figures of a small GPT on a two-core machine, none of them measured."""

import json
import math
from pathlib import Path

from gnomon.plan.estimate import Estimate, OperatorEstimate
from gnomon.profile.measurement import Measurement, OperatorMeasurement
from gnomon.runtime.run_directory import RunDirectory
from gnomon.spec import (
    AcceleratorSpec,
    ClusterSpec,
    Efficiency,
    GridCurve,
    HardwareProfile,
    Layout,
    MemoryBreakdown,
    ModelSpec,
    SizeCurve,
    TimeBreakdown,
    Workload,
)

MIB = 2**20
PARAMETERS = 3_294_720
MODEL = ModelSpec(name="fake-gpt", num_layers=4, hidden_size=256, num_heads=8, vocab_size=256, max_seq_len=256)
WORKLOAD = Workload(seq_len=256, global_batch=16, micro_batch=4)
LAYOUT = Layout(dp=2)
ACCELERATOR = AcceleratorSpec(
    name="Fake CPU @ 2.60GHz",
    kind="cpu",
    peak_flops={"fp32": 78.2e9, "bf16": 61.0e9},
    memory_bytes=8 * 2**30,
    memory_bandwidth_bytes_per_s=11.4e9,
)
CLUSTER = ClusterSpec(
    name="Fake CPU @ 2.60GHz",
    accelerator=ACCELERATOR,
    accelerators_per_node=2,
    peak_source="highest matrix-multiply rate measured by gnomon calibrate",
    source="measured 2026-01-02T03:04:05+00:00",
)
STEP_S, MEASURED_STEP_S = 0.5215, 0.5676
MODEL_FLOPS = 83.6e9
PREDICTED_TIME = TimeBreakdown(
    matmul_s=0.318,
    attention_s=0.0532,
    elementwise_s=0.0815,
    embedding_head_s=0.0141,
    optimizer_s=0.0238,
    communication_s=0.0194,
    idle_s=0.0115,
)
MEASURED_TIME = TimeBreakdown(
    matmul_s=0.3497,
    attention_s=0.0561,
    elementwise_s=0.0922,
    embedding_head_s=0.0139,
    optimizer_s=0.0201,
    communication_s=0.0227,
    data_s=0.0004,
    idle_s=0.0125,
)
PREDICTED_MEMORY = MemoryBreakdown(
    weights_bytes=13.18e6,
    gradients_bytes=13.18e6,
    optimizer_bytes=26.36e6,
    activations_bytes=171 * MIB,
    communication_bytes=13.18e6,
    framework_bytes=231 * MIB,
)
MEASURED_MEMORY = MemoryBreakdown(
    weights_bytes=13.18e6,
    gradients_bytes=13.18e6,
    optimizer_bytes=26.36e6,
    activations_bytes=188 * MIB,
    communication_bytes=13.4e6,
    framework_bytes=262 * MIB,
)


def fake_estimate(**changes) -> Estimate:
    """Return an estimate whose terms add up; `changes` replace fields."""
    fields = {
        "model": MODEL,
        "cluster": CLUSTER,
        "layout": LAYOUT,
        "workload": WORKLOAD,
        "num_parameters": PARAMETERS,
        "model_flops": MODEL_FLOPS,
        "step_time_s": STEP_S,
        "tokens_per_s": WORKLOAD.tokens_per_step / STEP_S,
        "mfu": MODEL_FLOPS / STEP_S / (2 * 78.2e9) / 2,
        "time": PREDICTED_TIME,
        "memory": PREDICTED_MEMORY,
        "fits": True,
        "operators": _planned_operators(),
        "sources": {
            "step_time_s": "sum of the operators over achieved rates (measured 2026-01-02), launches and communication",
            "tokens_per_s": "16 x 256 tokens / step time",
            "mfu": "model FLOPs / step time / (2 x peak)",
            "communication_s": "all-reduce over 2 ranks, measured curve",
            "memory": "weights, gradients, two AdamW moments in fp32, and the tensors that autograd keeps",
        },
        "assumptions": ("AdamW with fp32 weights, gradients and moments", "each operator waits for its launch"),
    }
    return Estimate(**{**fields, **changes})


def fake_measurement(**changes) -> Measurement:
    """Return a measurement of the same work, somewhat slower than the estimate; `changes` replace fields."""
    fields = {
        "model": MODEL,
        "layout": LAYOUT,
        "workload": WORKLOAD,
        "device": "Fake CPU @ 2.60GHz",
        "num_steps": 56,
        "step_time_s": MEASURED_STEP_S,
        "step_time_p10_s": 0.548,
        "step_time_p90_s": 0.611,
        "tokens_per_s": WORKLOAD.tokens_per_step / MEASURED_STEP_S,
        "model_flops": MODEL_FLOPS,
        "mfu": MODEL_FLOPS / MEASURED_STEP_S / (2 * 78.2e9) / 2,
        "time": MEASURED_TIME,
        "memory": MEASURED_MEMORY,
        "peak_memory_bytes": MEASURED_MEMORY.total_bytes,
        "peak_tensor_bytes": MEASURED_MEMORY.tensor_bytes,
        "num_profiled_steps": 5,
        "profiled_step_time_s": 0.652,
        "operators": _measured_operators(),
        "loss_first": 5.51,
        "loss_last": 2.31,
        "versions": {"torch": "2.9.0", "gnomon": "0.1.0"},
    }
    return Measurement(**{**fields, **changes})


def fake_hardware() -> HardwareProfile:
    """Return a calibration of the fake machine with constant rates."""
    efficiency = Efficiency(
        matmul={"fp32.forward": GridCurve.constant(70e9, 3)},
        attention={"fp32.forward": GridCurve.constant(30e9, 2)},
        memory={"copy.fp32": SizeCurve.constant(9e9)},
        dispatch_forward_s=4e-6,
        dispatch_backward_s=6e-6,
        asynchronous=False,
    )
    return HardwareProfile(
        created="2026-01-02T03:04:05+00:00",
        duration_s=62.0,
        accelerator=ACCELERATOR,
        shares={1: efficiency, 2: efficiency},
        spread={"matmul": 0.021, "memory": 0.064, "collectives": 0.113},
        versions={"torch": "2.9.0"},
    )


def fake_metrics(num_steps: int = 60) -> list[dict]:
    """Return the rows of metrics.jsonl: a slow first step, a falling loss, an evaluation every 20 steps."""
    rows = []
    for step in range(1, num_steps + 1):
        loss = 2.1 + 3.45 * math.exp(-step / 16) + 0.05 * math.sin(2.1 * step)
        step_time_s = 1.71 if step == 1 else MEASURED_STEP_S + 0.022 * math.sin(1.7 * step)
        rows.append(
            {
                "step": step,
                "tokens": step * WORKLOAD.tokens_per_step,
                "loss": round(loss, 4),
                "lr": 3e-4,
                "grad_norm": 1.0,
                "step_time_s": round(step_time_s, 5),
                "tokens_per_s": round(WORKLOAD.tokens_per_step / step_time_s, 1),
                "mfu": round(0.47 * MEASURED_STEP_S / step_time_s, 4),
            }
        )
        if step % 20 == 0:
            rows.append({"step": step, "eval_loss": round(loss + 0.08, 4)})
    return rows


def fake_environment() -> dict:
    """Return the content of env.json."""
    return {
        "date_utc": "2026-01-02T04:05:06+00:00",
        "command": "gnomon exec-pipeline",
        "working_directory": "/nowhere",
        "python": "3.11.9",
        "platform": "Linux-fake",
        "versions": {"gnomon": "0.1.0", "torch": "2.9.0"},
        "cpu": {"model": "Fake CPU @ 2.60GHz", "cores": 2, "memory_bytes": 8 * 2**30},
        "gpus": [{"name": "Fake GPU", "memory": "0 MiB"}],
        "git": {"commit": "0123456789abcdef", "dirty": False},
    }


def make_run(
    path: Path,
    *,
    estimate: Estimate | None = None,
    measurement: Measurement | None = None,
    metrics: list[dict] | None = None,
    hardware: HardwareProfile | None = None,
) -> RunDirectory:
    """Write a run directory that holds what is given."""
    run = RunDirectory.create(path, "fake: true\n", fake_environment())
    for noun, file in ((estimate, run.estimate), (measurement, run.measurement), (hardware, run.hardware)):
        if noun is not None:
            noun.save(file)
    if metrics is not None:
        run.metrics.write_text("".join(json.dumps(row) + "\n" for row in metrics), encoding="utf-8")
    return run


def make_full_run(path: Path) -> RunDirectory:
    """Write a run directory with everything in it."""
    return make_run(
        path,
        estimate=fake_estimate(),
        measurement=fake_measurement(),
        metrics=fake_metrics(),
        hardware=fake_hardware(),
    )


def _planned_operators() -> tuple[OperatorEstimate, ...]:
    rows = (
        # name, phase, term, calls, GFLOP, MB, ms, bound
        ("qkv projection", "forward", "matmul_s", 8, 3.2, 60, 44.0, "compute"),
        ("attention output projection", "forward", "matmul_s", 8, 1.1, 35, 15.6, "compute"),
        ("MLP up projection", "forward", "matmul_s", 8, 4.3, 90, 58.1, "compute"),
        ("MLP down projection", "forward", "matmul_s", 8, 4.3, 90, 60.3, "compute"),
        ("MLP up projection", "backward", "matmul_s", 16, 5.2, 190, 71.4, "compute"),
        ("MLP down projection", "backward", "matmul_s", 16, 5.0, 190, 68.6, "compute"),
        ("attention", "forward", "attention_s", 8, 0.54, 33, 17.2, "compute"),
        ("attention", "backward", "attention_s", 8, 1.34, 66, 36.0, "compute"),
        ("normalisation", "forward", "elementwise_s", 16, 0.08, 67, 8.2, "memory"),
        ("gelu", "forward", "elementwise_s", 8, 0.13, 134, 21.4, "memory"),
        ("gelu", "backward", "elementwise_s", 8, 0.16, 201, 31.2, "memory"),
        ("residual", "forward", "elementwise_s", 16, 0.02, 101, 20.7, "memory"),
        ("token embedding", "forward", "embedding_head_s", 2, 0.0, 16, 2.1, "memory"),
        ("head", "forward", "embedding_head_s", 2, 0.27, 14, 6.4, "compute"),
        ("cross entropy", "forward", "embedding_head_s", 2, 0.01, 12, 5.6, "memory"),
        ("AdamW", "optimizer", "optimizer_s", 1, 0.05, 92, 17.1, "memory"),
        ("gradient clipping", "optimizer", "optimizer_s", 1, 0.01, 40, 6.7, "memory"),
        ("gradient all-reduce", "communication", "communication_s", 1, 0.0, 13.2, 19.4, "network"),
    )
    return tuple(
        OperatorEstimate(
            name=name,
            phase=phase,
            term=term,
            calls=calls,
            flops=gflop * 1e9,
            traffic_bytes=megabytes * 1e6,
            time_s=ms / 1e3,
            launch_s=calls * 5e-6,
            bound=bound,
            source=f"{'matmul' if term == 'matmul_s' else 'memory'} curve 'fp32.{phase}'",
        )
        for name, phase, term, calls, gflop, megabytes, ms, bound in rows
    )


def _measured_operators() -> tuple[OperatorMeasurement, ...]:
    rows = (
        ("aten::mm", "matmul_s", 96, 239.1),
        ("aten::addmm", "matmul_s", 32, 110.6),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention_s", 8, 38.2),
        ("aten::gelu_backward", "elementwise_s", 8, 33.9),
        ("aten::gelu", "elementwise_s", 8, 24.1),
        ("gloo:all_reduce", "communication_s", 1, 22.7),
        ("aten::native_layer_norm_backward", "elementwise_s", 18, 18.3),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention_s", 8, 17.9),
        ("aten::_fused_adamw_", "optimizer_s", 1, 14.8),
        ("aten::add_", "elementwise_s", 60, 9.6),
        ("aten::mm", "embedding_head_s", 6, 8.8),
        ("aten::native_layer_norm", "elementwise_s", 18, 6.3),
        ("aten::_foreach_norm", "optimizer_s", 1, 5.3),
        ("aten::embedding_dense_backward", "embedding_head_s", 2, 3.2),
    )
    return tuple(
        OperatorMeasurement(name=name, term=term, calls=calls, time_s=ms / 1e3) for name, term, calls, ms in rows
    )
