"""What trackers make of a row."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

NOT_METRICS = frozenset({"step", "time_s"})


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row, without its step and time; what is unknown or no number is left out."""
    return {
        name: float(value) for name, value in row.items() if name not in NOT_METRICS and isinstance(value, int | float)
    }


def time_of(row: Mapping[str, Any]) -> float:
    """Return when the row was written, in Unix time in seconds; now, for a row that does not say."""
    return float(row.get("time_s") or time.time())
