"""The console scripts: each exists, and each runs one command line."""

import sys
import tomllib
from pathlib import Path

import pytest

from gnomon.cli import _run, scripts
from gnomon.errors import InterruptedRunError, PlanError

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


def test_every_declared_script_has_a_function():
    names = {name: target.partition(":")[2] for name, target in DECLARED.items() if ".scripts:" in target}
    assert set(names) == {"3dtrn", "sps2tpd", "sps2mfu", "ckpt-summarize", "topoviz", "topoeval", "topoassign"}
    for function in names.values():
        assert callable(getattr(scripts, function))


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PlanError("The plan is bad."), 1, "error: The plan is bad.\n"),
        (KeyboardInterrupt(), InterruptedRunError.exit_code, "error: Interrupted.\n"),
        (PermissionError(13, "Permission denied", "x"), 1, "error: 'x': Permission denied. Check the path"),
    ],
)
def test_a_script_fails_with_one_message(monkeypatch, capsys, error, code, message):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("gnomon.plan.conversions.tokens_per_day", fail)
    monkeypatch.setattr(sys, "argv", ["sps2tpd", "-t", "1", "-s", "1"])
    with pytest.raises(SystemExit) as end:
        scripts.sps2tpd()
    assert end.value.code == code
    assert capsys.readouterr().err.startswith(message)


def test_the_short_help_option(monkeypatch, capsys):
    from gnomon.cli.convert import app

    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # `python -m pytest` would name itself
    for arguments in (["-h"], ["sps2mfu", "-h"], ["sps2mfu", "--help"]):
        monkeypatch.setattr(sys, "argv", ["convert", *arguments])
        with pytest.raises(SystemExit) as end:
            _run.run(app)
        assert end.value.code == 0
        assert "Usage: convert" in capsys.readouterr().out
