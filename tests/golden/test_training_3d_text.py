"""The whole text of `3dtrn` for the three examples, on a machine and a stack that no calibration changes.

To accept a change: UPDATE_GOLDEN=1 python -m pytest tests/golden/test_training_3d_text.py, and read the diff.
"""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from gnomon.plan.training_3d.analyse import analyse
from gnomon.plan.training_3d.render import render
from gnomon.plan.training_3d.schema import TrainingConfig
from training_3d_fixtures import FIXTURES, STACK, mapping, report


@pytest.mark.parametrize("name", ["llama3_70b", "llama3_70b_cross_dc", "gpt_oss_120b"])
def test_text(name, monkeypatch):
    monkeypatch.chdir(FIXTURES)
    config = TrainingConfig.from_mapping(mapping(name, {"hardware.node_type": "cluster.yaml"}))
    text = io.StringIO()
    render(analyse(config, name, STACK), Console(file=text, width=80, highlight=False))
    golden = Path(__file__).with_name(f"3dtrn_{name}.txt")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text.getvalue(), encoding="utf-8")
    assert text.getvalue() == golden.read_text(encoding="utf-8")


def test_the_slowest_rank_is_waited_for_and_its_label_fits_the_column():
    text = io.StringIO()
    render(report("llama3_70b", fixed=False), Console(file=text, width=80, highlight=False))
    components = text.getvalue().partition("▶ ITERATION TIME COMPONENTS")[2].partition("▶")[0]
    rows = [line for line in components.splitlines() if " ms " in line]
    assert any(row.startswith("  Waiting for the Slowest Rank ") for row in rows)
    assert len({row.index(" ms ") for row in rows}) == 1
    assert "no stragglers" not in text.getvalue()
