"""The peak of live tensors from memory events, and resident memory."""

from __future__ import annotations

import pytest

from gnomon.errors import ReportError
from gnomon.profile import tensor_memory
from gnomon.profile.tensor_memory import peak_growth_bytes, peak_resident_bytes, resident_bytes


def step(start_us, end_us):
    return {"ph": "X", "cat": "user_annotation", "name": "gnomon::step", "ts": start_us, "dur": end_us - start_us}


def memory(time_us, total, device_type=0):
    return {
        "ph": "i",
        "name": "[memory]",
        "ts": time_us,
        "args": {"Total Allocated": total, "Bytes": 0, "Device Type": device_type},
    }


def trace(*items):
    return {"traceEvents": list(items)}


def test_growth_is_counted_from_the_start_of_the_last_step():
    document = trace(
        step(0, 100),
        memory(10, 500),
        memory(90, 300),
        step(200, 300),
        memory(210, 900),
        memory(220, 450),
        memory(310, 5000),
    )
    assert peak_growth_bytes(document) == 600


def test_device_memory_and_steps_that_allocate_nothing_do_not_grow():
    assert peak_growth_bytes(trace(step(0, 100), step(200, 300), memory(250, 700, device_type=1))) == 0
    assert peak_growth_bytes(trace(step(0, 100), memory(50, 300), step(200, 300))) == 0


def test_one_step_is_not_enough():
    with pytest.raises(ReportError, match=r"1 step\(s\), 2 are needed"):
        peak_growth_bytes(trace(step(0, 100)))


def test_resident_memory_of_this_process_is_plausible(monkeypatch, tmp_path):
    assert 2**20 < resident_bytes() <= peak_resident_bytes() < 2**40
    monkeypatch.setattr(tensor_memory, "_STATUS", tmp_path / "absent")
    assert peak_resident_bytes() > 2**20
