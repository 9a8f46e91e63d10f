"""What the network must beat: the best linear filter of the witnesses. `python baseline.py` prints what it reaches."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from detector import Array
from observation import Observation, observe
from search import compare
from trainer import NoiseRatio

TAPS = 65  # a quarter of a second, as much of it before as after


def wiener(witnesses: Array, strain: Array, others: Array) -> Array:
    """Return the noise that the least-squares filter of (witnesses, strain) expects from the witnesses `others`."""
    weights = np.linalg.lstsq(_delays(witnesses), strain.ravel(), rcond=None)[0]
    return (_delays(others) @ weights).reshape(len(others), -1)


def _delays(witnesses: Array) -> Array:
    """Return each witness at each of the delays: (segments * samples, channels * TAPS)."""
    half = TAPS // 2
    padded = np.pad(witnesses, ((0, 0), (0, 0), (half, half)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, TAPS, axis=2)
    return windows.transpose(0, 2, 1, 3).reshape(-1, witnesses.shape[1] * TAPS)


def baselines(seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return the figures of the linear filter, and of a cleaning that knows the couplings: nothing can do better."""
    fitted, held_out = observe(32, (seed, 0)), observe(128, (seed, 3))
    return {
        "linear": _figures(held_out, wiener(fitted.witnesses, fitted.strain, held_out.witnesses)),
        "perfect": _figures(held_out, held_out.coupled),
    }


def _figures(observation: Observation, expected: Array) -> dict[str, Any]:
    ratio = NoiseRatio()
    ratio.update(torch.from_numpy(expected), torch.from_numpy(observation.strain))
    return {"noise_ratio": ratio.compute().item(), **compare(observation, observation.strain - expected)}


if __name__ == "__main__":
    print(json.dumps(baselines(), indent=2))
