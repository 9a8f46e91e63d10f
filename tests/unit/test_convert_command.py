"""`gnomon convert` and its two scripts: flags, figures and refusals."""

import json
import sys

import pytest

from gnomon.cli import scripts

MFU = ["--samples-per-sec", "100", "--seqlen", "2048", "--model-size", "70b"]
MFU += ["--n-accelerators", "512", "--tflops-per-accelerator", "312"]


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a console script; return its exit code, stdout and stderr."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.setenv("COLUMNS", "160")
        code = 0
        try:
            getattr(scripts, name)()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def test_sps2mfu(script):
    code, out, err = script("sps2mfu", *MFU)
    assert (code, err) == (0, "")
    lines = {line[:23].strip(): line[23:].split("  ")[0].strip() for line in out.splitlines()}
    assert lines == {
        "tokens/s": "204.80 K",
        "tokens/day": "17.69 B",
        "model FLOPs per token": "420.00 GFLOP",
        "achieved": "86.02 PFLOP/s",
        "peak": "159.74 PFLOP/s",
        "MFU": "53.85%",
    }
    assert "\x1b" not in out


def test_short_flags_are_the_long_ones(script):
    short = script("sps2mfu", "-s", "100", "-l", "2048", "-m", "70b", "-n", "64x8", "-t", "312", "--json")
    assert short == script("sps2mfu", *MFU, "--json")
    assert json.loads(short[1])["mfu"] == pytest.approx(0.5384615)


def test_sps2tpd(script):
    expected = "100 samples/s of 2048 tokens at 90.00% goodput are 15.93 B tokens/day.\n"
    assert script("sps2tpd", "-t", "100", "-s", "2048", "-g", "0.9") == (0, expected, "")
    long = script("sps2tpd", "--samples-per-sec", "100", "--seqlen", "2048", "--goodput", "0.9", "--json")
    assert json.loads(long[1])["tokens_per_day"] == pytest.approx(15_925_248_000)
    assert json.loads(script("sps2tpd", "-t", "100", "-s", "2048", "--json")[1])["goodput"] == 1.0


def test_names_of_the_catalog(script):
    arguments = ("-s", "100", "-l", "2048", "-n", "512", "--model", "llama-2-70b", "--accelerator", "a100-80gb")
    document = json.loads(script("sps2mfu", *arguments, "--json")[1])
    # 6 x (80 layers of 855,638,016 and a head of 262,144,000) + 3 x 80 x 2 x 2048 x 8192
    assert document["flops_per_token"] == 6 * (80 * 855_638_016 + 262_144_000) + 3 * 80 * 2 * 2048 * 8192
    assert document["peak_flops_per_s"] == 512 * 312e12
    assert "dense bf16 peak of 'a100-80gb'" in document["sources"]["peak_flops_per_s"]
    faster = json.loads(script("sps2mfu", *arguments, "--dtype", "int8", "--json")[1])
    assert faster["mfu"] == pytest.approx(document["mfu"] / 2)


def test_an_mfu_above_one_is_impossible(script):
    code, out, err = script("sps2mfu", "-s", "1000", "-l", "2048", "-m", "70b", "-n", "512", "-t", "312", "--json")
    assert code == 1
    assert json.loads(out)["mfu"] == pytest.approx(5.384615)
    assert err.startswith("error: An MFU of 538.46% is impossible")
    limit = script("sps2mfu", "-s", "1", "-l", "1", "-m", "1t", "-n", "1", "-t", "6")
    assert limit[0] == 0
    assert "100.00%" in limit[1]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"-m": "70bananas"}, "'70bananas' is not a model size"),
        ({"-m": "7"}, "The model size 7 is 7 parameters. Write 7b for billions"),
        ({"-n": "2x8x9"}, "'2x8x9' is not a number of accelerators"),
        ({"-t": "0"}, "The peak FLOP/s of an accelerator is 0;"),
        ({"-s": "nan"}, "Samples per second is nan"),
        ({"-l": "-5"}, "The sequence length is -5"),
        ({"--model": "gpt2"}, "Give either -m/--model-size"),
        ({"--accelerator": "h100-sxm"}, "Give either -t/--tflops"),
        ({"-m": None, "--model": "gtp2"}, "Did you mean 'gpt2'?"),
        ({"-t": None, "--accelerator": "h100sxm"}, "Did you mean 'h100-sxm'?"),
        ({"-t": None, "--accelerator": "v100-32gb"}, "has no bf16 peak of 'v100-32gb'"),
        ({"-t": None}, "Give either -t/--tflops"),
        ({"--dtype": "fp8"}, "--dtype chooses the peak of --accelerator"),
    ],
)
def test_refusals(script, changed, words):
    options = {"-s": "100", "-l": "2048", "-m": "70b", "-n": "512", "-t": "312", **changed}
    given = [word for pair in options.items() if pair[1] is not None for word in pair]
    code, out, err = script("sps2mfu", *given)
    assert (code, out) == (1, "")
    assert words in err
    assert err.count("error: ") == 1


@pytest.mark.parametrize("words", [("sps2tpd", "-t"), ("sps2mfu", "-m", "70b", "-n", "8", "-t", "300", "-s")])
@pytest.mark.parametrize(("rate", "what"), [("1e308", "Samples per second"), ("1e29", "times the sequence length")])
def test_a_rate_too_large_to_count_with_is_said(script, words, rate, what):
    name, *options = words
    length = "-s" if name == "sps2tpd" else "-l"
    code, out, err = script(name, *options, rate, length, "2048000")
    assert (code, out) == (1, "")
    assert what in err
    assert "at most 1e+30" in err


def test_missing_options_are_named(script):
    code, _, err = script("sps2tpd", "-t", "1")
    assert code == 2
    assert "--seqlen" in err
