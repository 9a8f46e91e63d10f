"""Mistakes on the command line of `gnomon plan`: one clear message each, and no traceback."""

import json
import sys
from pathlib import Path

import pytest

from gnomon.cli.main import main
from gnomon.cli.plan_page import write_page
from gnomon.errors import ReportError
from gnomon.spec.catalog import load_cluster

EXAMPLES = Path(__file__).parents[2] / "examples"
PLAN = str(EXAMPLES / "plan/llama-3.2-1b-h100.yaml")
SEARCH = str(EXAMPLES / "search/llama-3.1-70b-h100.yaml")
SERVE = str(EXAMPLES / "inference/llama-3.3-70b-h100.yaml")
FEW = ("--axis", "tp=4", "--axis", "pp=4", "--axis", "schedule=1f1b")


@pytest.fixture
def gnomon(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.yaml").touch()

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gnomon", "plan", *arguments])
        try:
            main()
            code: object = 0
        except SystemExit as stopped:
            code = stopped.code or 0
        captured = capsys.readouterr()
        return int(str(code)), captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PLAN, "workload.global_batch=100000000000000000000000"), "tokens per step"),
        ((".",), "is a folder"),
        (("search", "."), "is a folder"),
        (("inference", "."), "is a folder"),
        (("cost", ".", "--tokens", "1T"), "is a folder"),
        (("/dev/null",), "'/dev/null' is no regular file. Give a YAML file."),
        (("search", "/dev/null"), "'/dev/null' is no regular file. Give a YAML file."),
        (("empty.yaml",), "'empty.yaml' is empty. Give a YAML file that names model, cluster and workload."),
        ((PLAN, "workload.seq_len=true"), "error: workload: 'seq_len' is True: give a number, not true or false"),
        ((PLAN, "cluster=rtx-4090"), "'rtx-4090' is an accelerator, not a cluster"),
        ((PLAN, "--html", "missing/page.html"), "the folder 'missing' does not exist"),
        ((PLAN, "--html", "."), "is a folder"),
        (("search", SEARCH, *FEW, "--html", "missing/page.html"), "the folder 'missing' does not exist"),
        (("search", SEARCH, "--memory-limit", "0"), "must be positive"),
        (("search", SEARCH, *FEW, "layout.tp=4"), "'layout.tp=4' sets a layout, which the search chooses. Fix an axis"),
        (("search", SEARCH, *FEW, "--price-per-accelerator-hour", "inf"), "--price-per-accelerator-hour"),
        (("cost", PLAN, "--tokens", "1T", "--pue", "1e308"), "error: --pue is 1e+308: input should be less than"),
        (
            ("cost", PLAN, "--tokens", "1T", "--price-per-accelerator-hour", "-1"),
            "--price-per-accelerator-hour is -1.0",
        ),
        (("cost", PLAN, "--tokens", "1T", "--idle-power", "2"), "error: --idle-power is 2.0: input should be less"),
        (("cost", PLAN, "--tokens", "1T", "--mtbf-hours", "-1"), "error: --mtbf-hours is -1. Give a positive number"),
        (("cost", PLAN, "--tokens", "1T", "--mtbf-hours", "nan"), "error: --mtbf-hours is nan. Give a positive number"),
        (("cost", PLAN, "--tokens", "1T", "--node-mtbf-hours", "0"), "error: --node-mtbf-hours is 0. Give a positive"),
        (("cost", PLAN, "--tokens", "1T", "--interval", "0s"), "error: --interval is '0s'; it must be positive"),
        (("cost", PLAN, "--tokens", "1T", "--restart-time", "soon"), "error: --restart-time: 'soon' is not a duration"),
        (("inference", SERVE, "--tpot-s", "1", "--price", "h100=2"), "Names that contain it: dgx-h100,"),
        ((PLAN, "+layout.shard_ranks=3"), "the nearest values that do: shard_ranks=2 or shard_ranks=4"),
        (("search", SEARCH, *FEW, "--memory-limit", "81GiB"), "is 81.00 GiB, but 'h100-sxm' has 80.00 GiB"),
        (("search", SEARCH, "--axis", "recompute=full:x"), "'x' is not a number"),
        (("search", SEARCH, "--axis", "tp=1,,2"), "'' is not a whole number"),
        (("search", SEARCH, "--axis", "tp=1", "--axis", "tp=2"), "given twice"),
        (("search", SEARCH, *FEW, "--memory-limit", "1MiB", "--html", "page.html"), "no layout fits"),
        (("cost", PLAN, "--tokens", "1e30"), "give at most"),
        (("inference", SERVE, "--ttft-s", "1", "--price", "2", "--price", "3"), "given twice"),
        (("inference", SERVE, "layout.tp=3"), "The nearest values that divide: tp=2 or tp=4"),
        ((PLAN, "+layout.tpp=2"), "Did you mean 'tp'?"),
        ((PLAN, "+layout.tp=3"), "The nearest values that divide: tp=2 or tp=4"),
    ],
)
def test_a_mistake_is_one_message(gnomon, arguments, message):
    code, out, err = gnomon(*arguments)
    assert code != 0
    assert message in err
    assert "Traceback" not in out + err
    assert "unexpectedly" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--bogus",),
        (PLAN, "--operators", "3"),
        ("search", SEARCH, *FEW),
        ("search", SEARCH, *FEW, "--axis", "zero_stage=1", "--sensitivity"),
        ("inference", SERVE),
        ("cost", PLAN, "--tokens", "1T"),
    ],
    ids=" ".join,
)
def test_no_color_writes_no_escape_code(gnomon, monkeypatch, arguments):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")  # what makes rich take a pipe for a terminal
    _, out, err = gnomon(*arguments)
    assert out + err
    assert "\x1b" not in out + err


def test_a_search_where_nothing_fits_names_the_smallest(gnomon):
    code, out, err = gnomon("search", SEARCH, *FEW, "--memory-limit", "1MiB")
    assert code == 0, err
    assert "The smallest needs" in " ".join(out.split())
    code, out, err = gnomon("search", SEARCH, *FEW, "--memory-limit", "1MiB", "--json")
    assert json.loads(out)["best"] == []
    assert "The smallest needs" in err


@pytest.mark.parametrize(
    "arguments", [("--memory-limit", "81GiB"), ("--axis", "cp=3"), ("--sensitivity", "--axis", "cp=3")]
)
def test_an_error_of_the_search_is_one_line(gnomon, arguments):
    code, out, err = gnomon("search", SEARCH, *FEW, *arguments)
    assert code != 0
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_progress_writes_nothing_where_there_is_no_terminal(gnomon):
    code, _, err = gnomon("search", SEARCH, *FEW)
    assert code == 0
    assert err == ""


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (".", "--html '.' is a folder"),
        ("missing/page.html", "--html 'missing/page.html': the folder 'missing' does not exist"),
        ("/proc/page.html", "--html '/proc/page.html' cannot be written"),
        ("/dev/null", "--html '/dev/null' is no regular file"),
    ],
)
@pytest.mark.parametrize("verb", [(PLAN,), ("search", SEARCH, *FEW)], ids=["plan", "search"])
def test_a_page_that_cannot_be_written_is_said_before_any_work(gnomon, tmp_path, verb, page, message):
    code, out, err = gnomon(*verb, "--html", page)
    assert code != 0
    assert err.startswith(f"error: {message}")
    assert "tmp" not in err
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["empty.yaml"]


def test_a_page_whose_folder_vanishes_meanwhile_is_named_as_it_was_asked_for(tmp_path):
    path = tmp_path / "folder" / "page.html"
    path.parent.mkdir()

    def vanish() -> str:
        path.parent.rmdir()
        path.parent.touch()
        return "text"

    with pytest.raises(ReportError, match=r"folder/page\.html' cannot be written"):
        write_page(path, False, vanish)


def test_a_layout_that_does_not_fit_shows_those_that_do(gnomon):
    code, out, err = gnomon(PLAN, "model=llama-3.1-70b", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["fits"] is False
    assert found["alternatives"]
    code, out, err = gnomon("inference", SERVE, "layout.tp=1", "--json")
    assert code == 0, err
    assert json.loads(out)["alternatives"]


def test_a_target_that_nothing_meets_is_said(gnomon):
    code, out, err = gnomon("inference", SERVE, "--tpot-s", "1e-9", "--cluster", "dgx-h100")
    assert code == 0, err
    assert "Nothing in the catalog meets the target." in out


def test_a_run_whose_layout_does_not_fit_is_priced_with_a_warning(gnomon):
    code, out, err = gnomon("cost", PLAN, "model=llama-3.1-70b", "--tokens", "1T", "--carbon-intensity", "0.3")
    assert code == 0, err
    assert "does not fit the memory" in out
    assert "e+" not in out


@pytest.mark.parametrize(
    ("changes", "fits"),
    [((), True), (("model=llama-3.1-70b",), False), (("cluster=unknown.yaml",), None)],
)
def test_the_json_of_a_run_says_whether_its_layout_fits(gnomon, tmp_path, changes, fits):
    cluster = load_cluster("dgx-h100", 2)
    device = cluster.accelerator.model_copy(update={"memory_bytes": None})
    cluster.model_copy(update={"accelerator": device}).save(tmp_path / "unknown.yaml")
    code, out, err = gnomon("cost", PLAN, *changes, "--tokens", "1T", "--json")
    assert code == 0, err
    assert json.loads(out)["fits"] is fits


@pytest.mark.parametrize("width", ["60", "80", "120"])
def test_tables_have_no_line_that_is_too_long(gnomon, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    for arguments in (
        (PLAN, "--operators", "5"),
        ("search", SEARCH, *FEW, "--top", "3"),
        ("cost", PLAN, "--tokens", "1T"),
    ):
        _, out, _ = gnomon(*arguments)
        tables = [line for line in out.splitlines() if line[:1] in "┃│┏┡└ "]
        assert tables
        assert all(len(line) <= int(width) for line in tables)


def test_the_layout_and_the_schedule_are_in_the_tables(gnomon):
    _, out, _ = gnomon(SEARCH, "+layout.tp=8", "+layout.pp=4", "+layout.dp=16")
    assert "dp 16, tp 8, pp 4" in out
    assert "1f1b: 4 stages, 64" in out


def test_a_page_beside_json_leaves_stdout_to_the_json(gnomon, tmp_path):
    code, out, err = gnomon("search", SEARCH, *FEW, "--json", "--html", "page.html")
    assert code == 0, err
    assert json.loads(out)["best"]
    assert "Page written to page.html" in err
    assert "nothing beats" in (tmp_path / "page.html").read_text()


def test_the_layout_of_a_file_is_said_not_to_be_searched(gnomon, tmp_path):
    plain = Path(SEARCH).read_text()
    (tmp_path / "with.yaml").write_text(plain + "layout: {tp: 2}\n")
    code, out, err = gnomon("search", "with.yaml", *FEW, "--json")
    assert code == 0
    assert err == "note: the layout in with.yaml is not used; --axis fixes parts of it\n"
    assert json.loads(out)["best"][0]["candidate"]["layout"]["tp"] == 4
    (tmp_path / "with.yaml").write_text(plain + "layout: {tpp: 2}\n")
    code, _, err = gnomon("search", "with.yaml", *FEW)
    assert code != 0
    assert "'tpp'" in err


def test_assumptions_stand_below_the_tables(gnomon):
    code, out, _ = gnomon(PLAN)
    assert code == 0
    assert "\n- launches hide behind the device's work in 70% of the step; elsewhere each operator waits for" in out


def test_a_message_that_quotes_a_file_cannot_steer_the_terminal(gnomon, tmp_path):
    (tmp_path / "bad.yaml").write_text(Path(PLAN).read_text() + '"k\\\\x1b[31mey": 1\\n')
    code, _, err = gnomon("bad.yaml")
    assert code != 0
    assert "\x1b" not in err
    assert "\\x1b" in err
