"""The page of `3dtrn` says what `3dtrn` says: exactly what no calibration changes, times within a quarter."""

import re

import pytest

from training_3d_fixtures import ROOT, report

PAGE = (ROOT / "docs" / "3dtrn.md").read_text(encoding="utf-8")
SECTIONS = {name.split(":")[0]: text for name, _, text in (p.partition("\n") for p in PAGE.split("\n### ")[1:])}
GIB, MIB = 2**30, 2**20


def _gnomon(example, quantity):
    """Return the third cell of a row."""
    (row,) = re.findall(rf"^\| {re.escape(quantity)} \| [^|]+ \| ([^|]+) \|", SECTIONS[example], re.MULTILINE)
    return row.strip()


@pytest.mark.parametrize("example", ["llama3_70b", "llama3_70b_cross_dc", "gpt_oss_120b"])
def test_totals(example):
    found = report(example, fixed=False)
    assert _gnomon(example, "total memory").startswith(f"{found.memory.total_bytes / GIB:.3f} GiB")
    assert float(_gnomon(example, "iteration time").split()[0]) == pytest.approx(found.final.iteration_time_s, rel=0.25)
    assert float(_gnomon(example, "MFU").rstrip("%")) / 100 == pytest.approx(found.final.mfu, rel=0.25)


def test_memory_of_llama():
    memory = report("llama3_70b", fixed=False).memory
    states = {state.name: f"{state.bytes / GIB:.3f}" for state in memory.states}
    assert _gnomon("llama3_70b", "params, grad_buffer") == f"{states['params']}, {states['grad_buffer']} GiB"
    assert _gnomon("llama3_70b", "params (opt)") == f"{states['params (opt)']} GiB"
    assert _gnomon("llama3_70b", "activations") == f"{memory.activations.total_bytes / GIB:.3f} GiB"
    per_layer = f"{memory.activations.per_layer_bytes / MIB:.1f} MiB"
    assert _gnomon("llama3_70b", "activations of a layer and micro-batch") == per_layer


def test_memory_of_gpt_oss():
    found = report("gpt_oss_120b", fixed=False)
    memory, model = found.memory, found.architecture
    optimizer = sum(state.bytes for state in memory.states if state.name not in ("params", "grad_buffer"))
    assert _gnomon("gpt_oss_120b", "optimizer state") == f"{optimizer / GIB:.3f} GiB"
    counts = f"{model.parameters / 1e9:.2f} B ({model.active_parameters / 1e9:.2f} B)"
    assert _gnomon("gpt_oss_120b", "parameters (active)") == counts
    assert _gnomon("gpt_oss_120b", "logits, loss and transients") == f"{memory.activations.rest_bytes / GIB:.3f} GiB"
