"""Quantities are parsed and printed with their units."""

from __future__ import annotations

import pytest

from gnomon import units
from gnomon.errors import SpecError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80 GiB", 80 * 2**30),
        ("1.5GB", 1_500_000_000),
        ("4096", 4096),
        (4096, 4096),
        (1e3, 1000),
        ("  2 kib ", 2048),
        (".5 MiB", 2**19),
        ("1e3 B", 1000),
        ("3 TiB", 3 * 2**40),
        ("0", 0),
    ],
)
def test_parse_bytes(text, size):
    parsed = units.parse_bytes(text)
    assert parsed == size
    assert isinstance(parsed, int)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90 s", 90.0), ("4min", 240.0), ("3 us", 3e-6), ("3 µs", 3e-6), ("1.5 h", 5400.0), ("2d", 172800.0), (7, 7.0)],
)
def test_parse_seconds(text, seconds):
    assert units.parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "GiB", "-1 GiB", "80 gigs", "1 2", "nan", "inf", "3 s"])
def test_wrong_bytes_are_refused_with_the_units(text):
    with pytest.raises(SpecError, match=r"is not bytes \(80 GiB.*Units: b, kib"):
        units.parse_bytes(text)


def test_more_bytes_than_a_number_can_hold():
    with pytest.raises(SpecError, match=r"'1e999 GiB' is not bytes .* too large"):
        units.parse_bytes("1e999 GiB")


def test_wrong_seconds_are_refused():
    with pytest.raises(SpecError, match="'3 weeks' is not a duration"):
        units.parse_seconds("3 weeks")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (units.format_bytes(0), "0 B"),
        (units.format_bytes(1536), "1.50 KiB"),
        (units.format_bytes(80 * 2**30), "80.00 GiB"),
        (units.format_bytes(5000 * 2**40), "5000.00 TiB"),
        (units.format_count(999), "999"),
        (units.format_count(6_738_415_616), "6.74 B"),
        (units.format_flops(1.23e12), "1.23 TFLOP"),
        (units.format_flops(989.4e12, per_second=True), "989.40 TFLOP/s"),
        (units.format_bandwidth(3.35e12), "3.35 TB/s"),
        (units.format_percent(0.4123), "41.2%"),
        (units.format_percent(None), "unknown"),
        (units.format_seconds(0), "0 s"),
        (units.format_seconds(0.0123), "12.3 ms"),
        (units.format_seconds(3e-6), "3 µs"),
        (units.format_seconds(5e-9), "5 ns"),
        (units.format_seconds(1.5), "1.5 s"),
        (units.format_seconds(125), "2 min 05 s"),
        (units.format_seconds(11400), "3 h 10 min"),
        (units.format_seconds(-0.0123), "-12.3 ms"),
    ],
)
def test_printed(printed, expected):
    assert printed == expected
