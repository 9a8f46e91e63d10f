"""`calibrate`: measure this machine into a `HardwareProfile`."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gnomon.errors import CalibrationError, InterruptedRunError
from gnomon.launch.local import RankJob, run_ranks
from gnomon.runtime.versions import gpus
from gnomon.spec import AcceleratorSpec, Efficiency, HardwareProfile, NetworkTier
from gnomon.spec.catalog import find_accelerator

BENCHMARKS_PER_SHARE = 500
PREPARATION_S = 12.0  # to start processes and make operands, about
MIN_DURATION_S = 0.005
MIN_BUDGET_S = 20.0


def calibrate(ranks: Sequence[int] | None = None, device: str = "auto", budget_s: float = 90.0) -> HardwareProfile:
    """Measure the machine with each number of ranks on it, within about `budget_s` seconds.

    Without `ranks`: one rank and two, or one alone on a machine with a single GPU.
    Raises CalibrationError for an empty or impossible list of ranks or a budget that is too short to mean anything.
    """
    ranks = default_ranks(device) if ranks is None else ranks
    check_request(ranks, budget_s)
    began = time.monotonic()
    results = {count: _measure_share(count, device, budget_s / len(ranks)) for count in sorted(set(ranks))}
    first = next(iter(results.values()))
    shares = {count: Efficiency.from_mapping(result["efficiency"]) for count, result in results.items()}
    most = max(shares)
    return HardwareProfile(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        duration_s=round(time.monotonic() - began, 1),
        accelerator=_accelerator(first, shares[min(shares)]),
        accelerators_per_node=most,
        tier=_tier(shares[most], most),
        shares=shares,
        spread={f"{group}, {count} rank(s)": s for count, r in results.items() for group, s in r["spread"].items()},
        versions=_versions(),
    )


def default_ranks(device: str) -> tuple[int, ...]:
    """Return the numbers of ranks that the machine has devices for, up to two."""
    found = cuda_devices() if device == "cuda" or (device == "auto" and gpus()) else 0
    return (1,) if found == 1 else (1, 2)


def cuda_devices() -> int:
    """Return how many GPUs PyTorch can use; it is asked in another process, because this one does not import it."""
    question = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
    return int(answer.stdout) if answer.returncode == 0 else 0


def check_request(ranks: Sequence[int], budget_s: float) -> None:
    """Raise CalibrationError for ranks that are no positive numbers and for a budget too short to mean anything."""
    if not ranks or not all(isinstance(count, int) and count >= 1 for count in ranks):
        raise CalibrationError(f"ranks={list(ranks)}: give at least one number of ranks, each 1 or more.")
    if not isinstance(budget_s, int | float) or not MIN_BUDGET_S <= budget_s < math.inf:
        raise CalibrationError(
            f"The budget of {budget_s!r} s is too short for medians that mean something, or no number; "
            f"set {MIN_BUDGET_S:g} s or more."
        )


def _measure_share(ranks: int, device: str, budget_s: float) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="gnomon-calibrate-"))  # kept when the ranks fail: their logs are in it
    output, request = folder / "result.json", folder / "request.json"
    min_duration_s = max(MIN_DURATION_S, (budget_s - PREPARATION_S) / BENCHMARKS_PER_SHARE)
    request.write_text(json.dumps({"device": device, "min_duration_s": min_duration_s, "output": str(output)}))
    worker = "gnomon.profile.calibration.worker"
    try:
        run_ranks(RankJob(module=worker, arguments=(str(request),), ranks=ranks, log_dir=folder / "logs"))
    except InterruptedRunError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if not output.is_file():
        raise CalibrationError(f"The calibration with {ranks} rank(s) ended without a result; logs: {folder / 'logs'}")
    result: dict[str, Any] = json.loads(output.read_text())
    shutil.rmtree(folder)
    return result


def _accelerator(result: dict[str, Any], efficiency: Efficiency) -> AcceleratorSpec:
    """Return the catalog's description when the device is in it, else what could be measured."""
    name = str(result["device"])
    known = find_accelerator(name)
    if known is None:
        return AcceleratorSpec(
            name=name,
            kind=result["kind"],
            memory_bytes=result["memory_bytes"],
            memory_bandwidth_bytes_per_s=efficiency.memory["copy.fp32"].rate[-1],
            source="measured by gnomon calibrate",
        )
    return known.model_copy(update={"memory_bytes": result["memory_bytes"]})


def _tier(efficiency: Efficiency, ranks: int) -> NetworkTier | None:
    curve = efficiency.collectives.get("all_reduce")
    if curve is None:
        return None
    return NetworkTier(
        name="node",
        span=ranks,
        bandwidth_bytes_per_s=max(curve.bandwidth.rate),
        latency_s=curve.latency_s,
        source="measured all-reduce",
    )


def _versions() -> dict[str, str]:
    found = {"cores": str(os.cpu_count())}
    for package in ("gnomon", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
