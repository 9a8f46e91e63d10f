"""One rank of a calibration: `python -m gnomon.profile.calibration.worker REQUEST.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gnomon.launch.rank_errors import report_rank_error
from gnomon.profile.calibration.compute import attention_curves, matmul_curves
from gnomon.profile.calibration.footprint import Footprint, measure_footprint
from gnomon.profile.calibration.memory import memory_curves
from gnomon.profile.calibration.network import collective_curves, communication_overlap
from gnomon.profile.calibration.overhead import measure_overhead
from gnomon.profile.calibration.stopwatch import Stopwatch
from gnomon.runtime.devices import device_name, resolve_device
from gnomon.runtime.environment import RankEnvironment
from gnomon.spec import Efficiency
from gnomon.strategy.registry import create_strategy

T = TypeVar("T")
PRECISIONS = ("fp32", "bf16")
STAGES = (
    "memory footprint",
    "launch overhead",
    "matrix multiply",
    "attention",
    "memory bandwidth",
    "collectives",
    "overlap",
)


def main(request_path: str) -> None:
    """Measure this rank's share of the machine; rank 0 writes the result next to the request."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    environment = RankEnvironment.detect()
    device = resolve_device(request["device"], environment.local_rank)
    title = f"calibrating {environment.world_size} rank(s)"
    with Stages(environment.is_main, title) as stage:
        result = measure(request, environment, device, stage)
    if environment.is_main:
        Path(request["output"]).write_text(json.dumps(result), encoding="utf-8")


def measure(
    request: dict[str, Any], environment: RankEnvironment, device: torch.device, stage: Stages
) -> dict[str, Any]:
    """Return {'efficiency', 'spread', 'device', 'memory_bytes', 'kind'} of this rank's share of the machine."""
    strategy = create_strategy("ddp" if environment.world_size > 1 else "single", environment, device)
    strategy.setup()
    try:
        watch = Stopwatch(device, float(request["min_duration_s"]))
        footprint = stage("memory footprint", lambda: measure_footprint(request["device"]))
        efficiency = measure_efficiency(watch, footprint, environment.world_size, stage)
    finally:
        strategy.teardown()
    return {
        "efficiency": efficiency.to_mapping(),
        "spread": watch.spread(),
        "device": device_name(device),
        "memory_bytes": _memory_bytes(device),
        "kind": "gpu" if device.type == "cuda" else "cpu",
    }


def measure_efficiency(watch: Stopwatch, footprint: Footprint, ranks: int, stage: Stages) -> Efficiency:
    """Run every micro-benchmark; the process group exists when there are several ranks."""
    torch.manual_seed(0)
    host = stage("launch overhead", lambda: measure_overhead(watch.device))
    matmul = stage("matrix multiply", lambda: dict(i for p in PRECISIONS for i in matmul_curves(watch, p, host.call_s)))
    attention = stage("attention", lambda: dict(i for p in PRECISIONS for i in attention_curves(watch, p, host.call_s)))
    memory = stage("memory bandwidth", lambda: memory_curves(watch, PRECISIONS, host.call_s))
    collectives = stage("collectives", lambda: collective_curves(watch) if ranks > 1 else {})
    overlap = stage("overlap", lambda: communication_overlap(watch) if ranks > 1 else 0.0)
    return Efficiency(
        matmul=matmul,
        attention=attention,
        memory={**memory, "data": footprint.data},
        collectives=collectives,
        dispatch_forward_s=host.forward_s,
        dispatch_backward_s=host.backward_s,
        dispatch_optimizer_s=host.optimizer_s,
        asynchronous=watch.device.type == "cuda",
        communication_overlap=overlap,
        framework_bytes=footprint.framework_bytes,
        allocator_overhead=footprint.allocator_overhead,
    )


class Stages:
    """Runs the stages of a calibration one by one and shows, on rank 0, which one it is."""

    def __init__(self, shown: bool, title: str) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[stage]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, disable=not shown)
        self._task = self._progress.add_task(title, total=len(STAGES), stage="")

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.update(self._task, stage="")
        self._progress.stop()

    def __call__(self, name: str, function: Callable[[], T]) -> T:
        """Return what the function of stage `name` returns."""
        self._progress.update(self._task, stage=name)
        result = function()
        self._progress.advance(self._task)
        return result


def _memory_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return float(psutil.virtual_memory().total)


if __name__ == "__main__":
    with report_rank_error():
        main(sys.argv[1])
