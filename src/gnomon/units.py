"""Parse and print bytes, seconds, counts and rates with their units."""

from __future__ import annotations

import math
import re

from gnomon.errors import SpecError

_BINARY = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_DECIMAL = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Zµ]*)\s*$")


def parse_bytes(text: str | int | float) -> int:
    """Return bytes from `'80 GiB'`, `'1.5GB'` or a plain number; raise SpecError for anything else."""
    return int(_parse(text, {**_BINARY, **_DECIMAL}, "bytes (80 GiB, 1.5 GB, 4096)"))


def parse_seconds(text: str | int | float) -> float:
    """Return seconds from `'90 s'`, `'4min'`, `'3 us'` or a plain number; raise SpecError for anything else."""
    return _parse(text, _SECONDS, "a duration (90 s, 4 min, 3 us)")


def _parse(text: str | int | float, factors: dict[str, int] | dict[str, float], what: str) -> float:
    match = _NUMBER.match(str(text))
    if match is None or match[2].lower() not in factors:
        raise SpecError(f"'{text}' is not {what}. Units: {', '.join(u for u in factors if u)}.")
    value = float(match[1]) * factors[match[2].lower()]
    if not math.isfinite(value):
        raise SpecError(f"'{text}' is not {what}: it is too large.")
    return value


def format_bytes(value: float) -> str:
    """Return bytes as `'1.50 GiB'`."""
    return _scaled(value, ("B", "KiB", "MiB", "GiB", "TiB"), 1024.0)


def format_count(value: float) -> str:
    """Return a count as `'6.74 B'` (K, M, B, T)."""
    return _scaled(value, ("", "K", "M", "B", "T", "Q"), 1000.0).strip()


def format_flops(value: float, per_second: bool = False) -> str:
    """Return FLOPs as `'1.23 TFLOP'`, or with `per_second` as `'1.23 TFLOP/s'`."""
    return _scaled(value, ("FLOP", "KFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"), 1000.0) + (
        "/s" if per_second else ""
    )


def format_bandwidth(value: float) -> str:
    """Return a bandwidth as `'3.35 TB/s'` (decimal, as vendors state it)."""
    return _scaled(value, ("B/s", "KB/s", "MB/s", "GB/s", "TB/s"), 1000.0)


def format_seconds(value: float) -> str:
    """Return seconds as `'12.3 ms'`, `'2 min 05 s'` or `'3 h 10 min'`."""
    magnitude = abs(value)
    if magnitude >= 3600:
        return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"
    if magnitude >= 60:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if magnitude >= 0.9995 * factor:  # below that, three digits would round to 1e+03 of the next unit
            return f"{value / factor:.3g} {unit}"
    return "0 s" if value == 0 else f"{value / 1e-9:.3g} ns"


def format_percent(value: float | None) -> str:
    """Return a fraction as `'41.2%'`, or `'unknown'` for None."""
    return "unknown" if value is None else f"{100 * value:.1f}%"


def _scaled(value: float, units: tuple[str, ...], step: float) -> str:
    index = 0
    while abs(value) >= step and index < len(units) - 1:
        value, index = value / step, index + 1
    return f"{value:.0f} {units[index]}" if index == 0 and value == int(value) else f"{value:.2f} {units[index]}"
