"""One rank of a calibration: `python -m gnomon.profile.calibration.worker REQUEST.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from gnomon.launch.rank_errors import report_rank_error
from gnomon.profile.calibration import overhead
from gnomon.profile.calibration.compute import attention_curves, matmul_curves
from gnomon.profile.calibration.memory import memory_curves
from gnomon.profile.calibration.network import collective_curves, communication_overlap
from gnomon.profile.calibration.stopwatch import Stopwatch
from gnomon.runtime.devices import device_name, resolve_device
from gnomon.runtime.environment import RankEnvironment
from gnomon.spec import Efficiency
from gnomon.strategy.registry import create_strategy

T = TypeVar("T")
PRECISIONS = ("fp32", "bf16")
STAGES = 7


def main(request_path: str) -> None:
    """Measure this rank's share of the machine; rank 0 writes the result next to the request."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    environment = RankEnvironment.detect()
    device = resolve_device(request["device"], environment.local_rank)
    strategy = create_strategy("ddp" if environment.world_size > 1 else "single", environment, device)
    strategy.setup()
    try:
        result = measure(device, environment, float(request["min_duration_s"]))
        if environment.rank == 0:
            Path(request["output"]).write_text(json.dumps(result), encoding="utf-8")
    finally:
        strategy.teardown()


def measure(device: torch.device, environment: RankEnvironment, min_duration_s: float) -> dict[str, object]:
    """Return {'efficiency', 'spread', 'device', 'memory_bytes'} of this rank's share of the machine."""
    torch.manual_seed(0)
    watch = Stopwatch(device, min_duration_s)
    stage = _Stages(environment)
    host = stage("launch overhead", lambda: overhead.measure_overhead(device))
    framework = overhead.resident_bytes() if device.type == "cpu" else 0.0
    matmul = stage("matrix multiply", lambda: dict(i for p in PRECISIONS for i in matmul_curves(watch, p, host.call_s)))
    attention = stage("attention", lambda: dict(i for p in PRECISIONS for i in attention_curves(watch, p, host.call_s)))
    memory = stage("memory bandwidth", lambda: memory_curves(watch, PRECISIONS, host.call_s))
    alone = environment.world_size == 1
    collectives = stage("collectives", lambda: {} if alone else collective_curves(watch))
    overlap = stage("overlap", lambda: 0.0 if alone else communication_overlap(watch))
    efficiency = Efficiency(
        matmul=matmul,
        attention=attention,
        memory=memory,
        collectives=collectives,
        dispatch_forward_s=host.forward_s,
        dispatch_backward_s=host.backward_s,
        dispatch_optimizer_s=host.optimizer_s,
        asynchronous=device.type == "cuda",
        communication_overlap=overlap,
        framework_bytes=framework,
    )
    return {
        "efficiency": efficiency.to_mapping(),
        "spread": watch.spread(),
        "device": device_name(device),
        "memory_bytes": _memory_bytes(device),
        "kind": "gpu" if device.type == "cuda" else "cpu",
    }


class _Stages:
    """Runs the stages of a calibration; rank 0 prints one JSON line per stage for the parent's progress bar."""

    def __init__(self, environment: RankEnvironment) -> None:
        self.speaks = environment.rank == 0

    def __call__(self, name: str, function: Callable[[], T]) -> T:
        if self.speaks:
            print(json.dumps({"stage": name}), flush=True)
        return function()


def _memory_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return float(psutil.virtual_memory().total)


if __name__ == "__main__":
    with report_rank_error():
        main(sys.argv[1])
