"""The published figures of an accelerator agree with each other."""

from __future__ import annotations

import pytest

import gnomon.spec.catalog as catalog

# name: clock in MHz, and half-precision FLOP that one unit does in a cycle, both from the white paper of the generation
RATES = {
    "v100-32gb": (1530, 1024),
    "v100-sxm3-32gb": (1597, 1024),
    "t4": (1590, 1024),
    "a100-80gb": (1410, 2048),
    "a100-64gb-custom": (1410, 2048),
    "a30": (1440, 2048),
    "a10": (1695, 1024),
    "a40": (1740, 1024),
    "rtx-a6000": (1800, 1024),
    "rtx-3090": (1695, 512),
    "rtx-4090": (2520, 512),
    "rtx-6000-ada": (2505, 1024),
    "rtx-5090": (2407, 512),
    "rtx-pro-6000-blackwell": (2617, 1024),
    "l4": (2040, 1024),
    "l40": (2490, 512),
    "l40s": (2520, 1024),
    "h100-sxm": (1830, 4096),
    "h100-pcie": (1620, 4096),
    "mi210": (1700, 1024),
    "mi250": (1700, 1024),
    "mi250x-gcd": (1700, 1024),
    "mi300a": (2100, 2048),
    "mi300x": (2100, 2048),
    "mi350x": (2200, 4096),
    "mi355x": (2400, 4096),
    "max-1550": (1600, 4096),
    "gaudi2": (1650, 2 * 256 * 256),
    "gaudi3": (1750, 2 * 256 * 256),
    "tpu-v2": (700, 2 * 128 * 128),
    "tpu-v3": (940, 2 * 128 * 128),
    "tpu-v4": (1050, 2 * 128 * 128),
    "tpu-v5e": (1500, 2 * 128 * 128),
    "tpu-v5p": (1750, 2 * 128 * 128),
}


@pytest.mark.parametrize(("name", "clock_mhz", "flop"), [(name, *rates) for name, rates in RATES.items()])
def test_the_peak_is_units_times_clock_times_rate(name, clock_mhz, flop):
    spec = catalog.load_accelerator(name)
    peak = spec.peak_flops.get("fp16", spec.peak_flops.get("bf16"))
    assert spec.num_compute_units * clock_mhz * 1e6 * flop == pytest.approx(peak, rel=0.015)


@pytest.mark.parametrize(
    ("name", "units"),
    [("b200", 148), ("gb200", 152), ("b300", 148), ("gb300", 152), ("h100-nvl", 132), ("h20", 78), ("mi325x", 304)],
)
def test_compute_units(name, units):
    assert catalog.load_accelerator(name).num_compute_units == units


@pytest.mark.parametrize("name", catalog.list_accelerators())
def test_a_narrower_type_is_never_slower(name):
    peaks = catalog.load_accelerator(name).peak_flops
    rates = [peaks[dtype] for dtype in ("fp64", "fp32", "tf32", "bf16", "fp8", "fp4") if dtype in peaks]
    assert rates == sorted(rates)
    if {"fp16", "bf16"} <= set(peaks):
        assert peaks["fp16"] == peaks["bf16"]


def test_boards_of_one_chip_differ_as_their_vendor_says():
    b200, gb200, b300, gb300 = (catalog.load_accelerator(name) for name in ("b200", "gb200", "b300", "gb300"))
    assert [spec.peak_flops["bf16"] for spec in (b200, gb200, b300, gb300)] == [2250e12, 2500e12, 2250e12, 2500e12]
    assert [spec.peak_flops["fp4"] for spec in (b200, gb200, b300, gb300)] == [9e15, 10e15, 14e15, 15e15]
    assert [spec.memory_bytes / 2**30 for spec in (b200, gb200, b300, gb300)] == [180, 186, 270, 279]


def test_a_card_of_two_dies_is_twice_a_die():
    card, die = catalog.load_accelerator("mi250x"), catalog.load_accelerator("mi250x-gcd")
    assert card.num_compute_units == 2 * die.num_compute_units
    assert card.memory_bytes == 2 * die.memory_bytes
    assert card.peak_flops == {dtype: 2 * peak for dtype, peak in die.peak_flops.items()}


def test_what_nobody_publishes_is_absent():
    assert "fp64" not in catalog.load_accelerator("h800").peak_flops
    assert "fp32" not in catalog.load_accelerator("tpu-v5p").peak_flops
    assert catalog.load_accelerator("tpu-v7x").num_compute_units is None
    assert catalog.load_accelerator("epyc-9654").memory_bytes is None
