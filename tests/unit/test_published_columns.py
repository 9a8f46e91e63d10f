"""The columns of a table: yes and no in words, and names that look misspelt."""

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gnomon.cli import plan_fit, plan_validate
from gnomon.plan.published.columns import FLAGS, KNOWN, flag, misspelt
from gnomon.plan.published.predict import predict, prepare
from gnomon.plan.published.table import read_table

FILE = Path(__file__).parents[1] / "fixtures" / "published_small.csv"
PAGE = Path(__file__).parents[2] / "docs" / "validate.md"


@pytest.mark.parametrize("yes", ["1", "1.0", "8", "2.0", "yes", "TRUE", " On ", "y", True, 1])
@pytest.mark.parametrize("no", ["0", "0.0", "No", "false", "OFF", "n", False, 0])
def test_yes_and_no_in_words(yes, no) -> None:
    row = {"sp": yes, "gated_mlp": no, "flash_attention": " "}
    assert (flag(row, "sp"), flag(row, "gated_mlp")) == (True, False)
    assert (flag(row, "flash_attention"), flag(row, "tied_embeddings", True)) == (None, True)


@pytest.mark.parametrize("column", FLAGS)
def test_words_price_a_row_as_numbers_do(column: str) -> None:
    row = {**read_table(FILE).rows()[0], "tp": "2"}
    for word, number in (("Yes", "1"), ("off", "0"), ("unknown", "")):
        assert prepare({**row, column: word}).problem == prepare({**row, column: number}).problem
    assert prepare({**row, column: "yes"}).problem != prepare({**row, column: "no"}).problem
    refused, priced = predict([{**row, column: "maybe"}, row])
    assert refused.refused == f"column {column} is 'maybe'; write yes or no (or true/false, on/off, y/n, 1/0)"
    assert priced.refused is None


def test_columns_that_look_misspelt_are_named() -> None:
    assert misspelt(["id", "recompte"]) == ["note: column 'recompte' is not read. Did you mean 'recompute'?"]
    assert misspelt(["tokens_per_s_per_accelerator"]) == [
        "note: column 'tokens_per_s_per_accelerator' is not read. Did you mean 'tokens_per_s_per_accel'?"
    ]
    assert misspelt(["MFU_PCT"]) == ["note: column 'MFU_PCT' is not read. Did you mean 'mfu_pct'?"]
    assert misspelt(["recompte", "recompute"]) == []
    assert misspelt(["source_url_or_repo_path", "colour", "derived_notes", "split", "missing", "dp"]) == []
    assert misspelt(KNOWN) == []


def test_the_page_names_every_column() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## The table")[2].partition("\n## ")[0]
    needed, _, table = section.partition("| what |")
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    named = re.findall(r"`(\w+)`", needed.partition("Needed columns")[2] + "".join(rows))
    assert {name for name in named if not name.endswith("_")} == set(KNOWN)


@pytest.mark.parametrize("module", [plan_validate, plan_fit])
def test_the_commands_print_the_notes_on_stderr(module, tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(FILE.read_text(encoding="utf-8").replace("recompute,", "recompte,", 1), encoding="utf-8")
    app = typer.Typer()
    app.command()(module.command)
    result = CliRunner().invoke(app, [str(path), "--json"])
    assert result.exit_code == 0, result.output
    note = "note: column 'recompte' is not read. Did you mean 'recompute'?"
    assert result.stderr.splitlines().count(note) == 1
    assert note not in result.stdout
