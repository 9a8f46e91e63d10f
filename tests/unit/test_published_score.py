"""Statistics of the errors, the table reader's refusals, and the command."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from gnomon.cli import plan_validate
from gnomon.errors import PlanError
from gnomon.plan.published.score import median, quantile, score, spearman, statistics, summarize
from gnomon.plan.published.table import read_table

FILE = Path(__file__).parents[1] / "fixtures" / "published_small.csv"


def test_statistics_weigh_the_rows() -> None:
    found = statistics(np.asarray([-0.1, 0.3, 0.5]), np.asarray([1.0, 0.5, 0.5]))
    assert found == {
        "n": 3,
        "median": pytest.approx(0.2),
        "mean": pytest.approx(0.25),
        "p90": pytest.approx(0.5),
        "bias": pytest.approx(0.15),
    }
    assert statistics(np.asarray([]), np.asarray([]))["mean"] is None


def test_quantile_is_the_smallest_value_with_that_share() -> None:
    values, even = np.asarray([4.0, 1.0, 3.0, 2.0]), np.ones(4)
    assert [quantile(values, even, share) for share in (0.25, 0.5, 0.75, 0.9, 1.0)] == [1.0, 2.0, 3.0, 4.0, 4.0]
    assert quantile(values, np.asarray([9.0, 1.0, 1.0, 1.0]), 0.5) == 4.0


def test_median_is_the_middle_of_two_values_that_split_the_weight() -> None:
    assert median(np.asarray([0.288, 0.026]), np.ones(2)) == pytest.approx(0.157)
    assert median(np.asarray([3.0, 1.0, 1.0, 5.0]), np.ones(4)) == 2.0
    assert median(np.asarray([3.0, 1.0, 2.0]), np.ones(3)) == 2.0
    assert median(np.asarray([1.0, 2.0, 3.0, 9.0]), np.asarray([1 / 3, 1 / 3, 1 / 3, 1.0])) == 6.0
    assert median(np.asarray([1.0, 2.0, 3.0]), np.asarray([1.0, 1.0, 3.0])) == 3.0
    assert median(np.asarray([4.0]), np.ones(1)) == 4.0


def test_rank_correlation() -> None:
    even = np.ones(5)
    first = np.asarray([1.0, 2.0, 3.0, 4.0, 5.0])
    assert spearman(first, np.exp(first), even) == pytest.approx(1.0)
    assert spearman(first, -first, even) == pytest.approx(-1.0)
    # 1 - 6 sum d^2 / n (n^2 - 1) = 1 - 6 * 6 / 120
    assert spearman(first, np.asarray([2.0, 1.0, 4.0, 5.0, 3.0]), even) == pytest.approx(1 - 6 * 8 / 120)
    # a row of weight two is two rows
    twice = np.asarray([0, 0, 1, 2, 3])
    other = np.asarray([3.0, 1.0, 2.0, 5.0])
    weights = np.asarray([2.0, 1.0, 1.0, 1.0])
    assert spearman(first[:4], other, weights) == pytest.approx(spearman(first[:4][twice], other[twice], even))
    assert spearman(first[:2], first[:2], even[:2]) is None
    assert spearman(np.ones(5), first, even) is None


@pytest.fixture(scope="module")
def scored() -> dict:
    return {row.id: row for row in score(read_table(FILE))}


def test_error_is_predicted_over_measured_less_one(scored: dict) -> None:
    row = scored["gpt-a"]
    assert row.error == row.prediction.step_time_s / 4.0 - 1.0
    assert row.memory_error == row.prediction.memory_gb_per_accel / 40.0 - 1.0
    rate = scored["llama-a"]
    assert rate.error == pytest.approx(8000 / rate.prediction.tokens_per_s_per_accel - 1.0)
    assert scored["no-hidden"].error is None
    assert scored["unknown-flops"].error is None


def test_summary_counts_a_group_once(scored: dict) -> None:
    summary = summarize(list(scored.values()))
    assert (summary["rows"], summary["predicted"], summary["n"]) == (14, 12, 10)
    assert summary["refused"] == {
        "column hidden is blank; the prediction needs it": 1,
        "column tp is 'two'; a number is needed": 1,
    }
    assert set(summary["not_compared"]) == {
        "how the source counts FLOPs is not known",
        "column step_time_s is 'fast'; a number is needed",
    }
    one = summary["by"]["source"]["Megatron-LM on one node"]
    a, b, *others = (abs(scored[name].error) for name in ("gpt-a", "gpt-b", "gpt-c", "gpt-tflops", "gpt-launches"))
    assert one["mean"] == pytest.approx(((a + b) / 2 + sum(others)) / 4)
    assert summary["memory"]["n"] == 2
    assert set(summary["by"]["grade"]) == {"A", "B", "C"}
    assert summary["by"]["grade"]["C"]["n"] == 0
    assert summary["remarks"].keys() == {r for row in scored.values() for r in row.prediction.remarks}


def test_json_of_the_command() -> None:
    app = typer.Typer()
    app.command()(plan_validate.command)
    result = CliRunner().invoke(app, [str(FILE), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert set(document) == {"rows", "summary"}
    keys = {"step_time_s", "tokens_per_s_per_accel", "mfu_pct", "memory_gb_per_accel"}
    for row in document["rows"]:
        assert set(row) == {"id", "predicted", "error", "refused"}
        assert (row["predicted"] is None) == (row["refused"] is not None)
        assert row["predicted"] is None or set(row["predicted"]) == keys
    assert [row["id"] for row in document["rows"] if row["refused"]] == ["no-hidden", "text-in-number"]


@pytest.mark.parametrize("by", ["source", "hardware", "grade"])
def test_text_of_the_command(by: str) -> None:
    app = typer.Typer()
    app.command()(plan_validate.command)
    result = CliRunner().invoke(app, [str(FILE), "--by", by], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "12 of 14 rows predicted, 10 compared" in result.output
    assert "column hidden is blank" in result.output
    assert "gpt-b" in result.output


def test_rows_that_measured_nothing_show_their_predictions(tmp_path: Path) -> None:
    table = tmp_path / "asked.csv"
    table.write_text(f"{HEADER}\nmine,me,H100,64,32,4096,32,32000,4096,256\n")
    app = typer.Typer()
    app.command()(plan_validate.command)
    result = CliRunner().invoke(app, [str(table)], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "Largest errors" not in result.output
    shown = result.output.partition("Predictions")[2]
    assert "mine" in shown
    assert " s " in shown


HEADER = "id,source,hardware,n_accel,n_layers,hidden,n_heads,vocab,seq_len,gbs"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as CSV"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe\x00", "cannot be read as CSV|no column"),
        (b"a,b\n1,2\n", "no column 'id'"),
        ((HEADER + "\nx" + ",1" * 9).encode("utf-16"), "is text in UTF-16|cannot be read as CSV"),
        (HEADER.replace(",hidden", ",hiden").encode() + b"\n", "no column 'hidden'.*Did you mean 'hiden'"),
        (HEADER.encode() + b"\n", "a header and no rows"),
        (HEADER.encode() + b"\n\n\n", "a header and no rows"),
        (HEADER.encode() + b"\nx" + b",1" * 9 + b"\ny" + b",1" * 9 + b"\nx" + b",1" * 9, "'x' stands in rows 1, 3"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    with pytest.raises(PlanError) as caught:
        read_table(path)
    assert re.search(words, str(caught.value), re.DOTALL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", [b"\n", b"\r\n\r\n", b"," * 9 + b"\n", b"  \n"])
def test_blank_last_lines_are_ignored(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes(HEADER.encode() + b"\nx" + b",1" * 9 + b"\n" + end)
    assert [row["id"] for row in read_table(path).rows()] == ["x"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="File not found"):
        read_table(tmp_path / "none.csv")


def test_a_row_without_an_id_is_refused_by_its_place(tmp_path: Path) -> None:
    lines = FILE.read_text(encoding="utf-8").replace("\ngpt-tflops,", "\n,")
    path = tmp_path / "results.csv"
    path.write_text(lines, encoding="utf-8")
    found = score(read_table(path))
    assert [row.id for row in found][:5] == ["gpt-a", "gpt-b", "gpt-c", "row 4", "llama-a"]
    assert found[3].prediction.refused == "column id is blank; every row needs a name"
    assert found[4].prediction.refused is None
