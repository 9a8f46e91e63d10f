"""Numbers as the report writes them: with units, with signs, and as plain words."""

from __future__ import annotations

from gnomon.report.comparison import Term
from gnomon.units import format_bytes, format_percent, format_seconds

_FRACTIONS = {1 / 4: "a quarter", 1 / 3: "a third", 1 / 2: "half", 2 / 3: "two thirds", 3 / 4: "three quarters"}
MISSING = "–"


def format_value(value: float | None, unit: str) -> str:
    """Return a quantity of a `Term` with its unit, or a dash for None."""
    if value is None:
        return MISSING
    if unit == "s":
        return format_seconds(value)
    if unit == "bytes":
        return three_digits(format_bytes(value))
    if unit == "fraction":
        return format_percent(value)
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def format_difference(value: float | None, unit: str) -> str:
    """Return a quantity with its sign, fractions in percentage points."""
    if value is None:
        return MISSING
    text = f"{100 * abs(value):.1f} points" if unit == "fraction" else format_value(abs(value), unit)
    return text if value == 0 else f"{'+' if value > 0 else '−'}{text}"


def format_error(error: float | None) -> str:
    """Return a relative error as `'+8.3%'`, or a dash for None."""
    if error is None:
        return MISSING
    if abs(error) < 0.0005:
        return "0.0%"
    return f"{100 * error:+,.{1 if abs(error) < 1 else 0}f}%".replace("-", "−")


def term_cells(term: Term) -> tuple[str, str, str, str, str]:
    """Return label, predicted, measured, difference and error of a term as text."""
    return (
        term.label,
        format_value(term.predicted, term.unit),
        format_value(term.measured, term.unit),
        format_difference(term.difference, term.unit),
        format_error(term.relative_error),
    )


def error_words(term: Term) -> str:
    """Return how far the prediction was off, as `'8.3% too low'`."""
    error = term.relative_error
    if error is None:
        return "not comparable"
    if abs(error) < 0.0005:
        return "exact"
    digits = 1 if abs(error) < 1 else 0
    return f"{100 * abs(error):.{digits}f}% too {'high' if error > 0 else 'low'}"


def three_digits(text: str) -> str:
    """Return `'513.06 MiB'` as `'513 MiB'` and `'12.57 MiB'` as `'12.6 MiB'`: more digits are not known."""
    number, _, unit = text.partition(" ")
    value = float(number)
    decimals = 0 if abs(value) >= 99.95 or value == 0 or unit in ("", "B") else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{decimals}f} {unit}".strip()


def format_time(iso: str) -> str:
    """Return an ISO 8601 time in UTC as `'2026-01-02 03:04:05 UTC'`."""
    text = iso.replace("T", " ").removesuffix("Z").removesuffix("+00:00")
    return f"{text.partition('.')[0]} UTC"


def share_words(share: float) -> str:
    """Return a share of a whole as words: `'two thirds'`, `'nearly all'`, or a percentage."""
    if 0.93 <= share <= 1.0:
        return "nearly all"
    nearest = min(_FRACTIONS, key=lambda value: abs(value - share))
    return _FRACTIONS[nearest] if abs(nearest - share) < 0.035 else f"{100 * share:.0f}%"


def join_words(parts: list[str]) -> str:
    """Return `'a'`, `'a and b'` or `'a, b and c'`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def plural(count: int, noun: str) -> str:
    """Return `'1 rank'` or `'2 ranks'`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
