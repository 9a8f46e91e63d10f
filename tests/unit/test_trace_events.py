"""Reading, cutting and writing traces."""

from __future__ import annotations

import gzip

import pytest

from gnomon.errors import ReportError
from gnomon.profile.trace_events import cut_trace, read_trace, trace_events, write_trace

DOCUMENT = {
    "schemaVersion": 1,
    "traceEvents": [
        {"ph": "M", "name": "process_name", "args": {"name": "python"}},
        {
            "ph": "X",
            "cat": "cpu_op",
            "name": "aten::mm",
            "pid": 7,
            "tid": 8,
            "ts": 4515904172112.982,
            "dur": 2.001,
            "args": {"External id": 3, "Sequence number": 12, "Fwd thread id": 1},
        },
        {
            "ph": "X",
            "cat": "user_annotation",
            "name": "gnomon::step",
            "pid": 7,
            "tid": 8,
            "ts": 10,
            "dur": 5,
            "args": {},
        },
        {
            "ph": "X",
            "cat": "kernel",
            "name": "gemm",
            "pid": 0,
            "tid": 7,
            "ts": 20,
            "dur": 5,
            "args": {"External id": 3},
        },
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 7, "tid": 8, "ts": 20, "dur": 5},
        {"ph": "X", "cat": "Trace", "name": "PyTorch Profiler (0)", "pid": "Spans", "tid": "x", "ts": 0, "dur": 100},
        {"ph": "i", "name": "[memory]", "ts": 12, "args": {}},
    ],
}


def test_activities_are_read_in_order_with_nanoseconds_and_links():
    step, kernel, mm = trace_events(DOCUMENT)
    assert (step.name, kernel.name, mm.name) == ("gnomon::step", "gemm", "aten::mm")
    assert (step.start_ns, step.end_ns, step.duration_s) == (10_000, 15_000, 5e-6)
    assert (mm.thread, mm.sequence, mm.is_backward, mm.external_id) == ("7/8", 12, True, 3)
    assert (mm.start_ns, mm.end_ns - mm.start_ns) == (4515904172112982, 2001)
    assert (kernel.external_id, kernel.is_backward, kernel.sequence) == (3, False, None)


def test_a_cut_keeps_metadata_and_what_overlaps_the_window(tmp_path):
    cut = cut_trace(DOCUMENT, (0, 15_000))
    assert [item["name"] for item in cut["traceEvents"]] == [
        "process_name",
        "gnomon::step",
        "PyTorch Profiler (0)",
        "[memory]",
    ]
    path = write_trace(tmp_path / "traces" / "rank-0.json.gz", cut)
    assert read_trace(path) == cut


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"traceEvents": 3}', b"\xff\xfe"])
@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_a_damaged_trace_is_one_clear_error(tmp_path, content, suffix):
    path = tmp_path / f"trace{suffix}"
    path.write_bytes(gzip.compress(content)[:-3] if suffix == ".json.gz" else content)
    with pytest.raises(ReportError, match="Profile the run again"):
        read_trace(path)


def test_a_missing_trace_is_one_clear_error(tmp_path):
    with pytest.raises(ReportError, match="cannot be read"):
        read_trace(tmp_path / "trace.json")
