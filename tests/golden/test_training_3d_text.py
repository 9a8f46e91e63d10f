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
from training_3d_fixtures import FIXTURES, STACK, mapping


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
