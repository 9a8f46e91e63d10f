"""Rates of samples as tokens per day and as MFU, against figures computed by hand."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.errors import PlanError
from gnomon.plan.conversions import (
    dense_peak_flops_per_s,
    model_flops_per_token,
    parse_model_size,
    parse_num_accelerators,
    throughput,
    tokens_per_day,
)
from gnomon.spec import ModelSpec
from gnomon.spec.catalog import load_accelerator, load_model


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("70b", 70_000_000_000),
        ("70B", 70_000_000_000),
        ("1.5b", 1_500_000_000),
        (".5b", 500_000_000),
        ("100m", 100_000_000),
        ("1t", 10**12),
        ("12k", 12_000),
        (" 124439808 ", 124_439_808),
        ("1000000", 10**6),
    ],
)
def test_model_sizes(text, size):
    assert parse_model_size(text) == size


@pytest.mark.parametrize(
    "text", ["70bananas", "b", "", "70 b", "-70b", "0b", "0.4", "1e9", "70bb", "1,5b", "nan", "٣b", "9" * 40]
)
def test_what_is_no_model_size(text):
    with pytest.raises(PlanError, match="is not a model size"):
        parse_model_size(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7", "The model size 7 is 7 parameters. Write 7b for billions or 7m for millions."),
        ("1.3", "The model size 1.3 is 1 parameter. Write 1.3b"),
        (" 999999 ", "999999 is 999999 parameters"),
    ],
)
def test_a_model_size_whose_suffix_was_forgotten(text, words):
    with pytest.raises(PlanError, match=re.escape(words)):
        parse_model_size(text)


@pytest.mark.parametrize(("text", "count"), [("16", 16), ("2x8", 16), ("64X8", 512), (" 3 ", 3)])
def test_numbers_of_accelerators(text, count):
    assert parse_num_accelerators(text) == count


@pytest.mark.parametrize("text", ["2x8x9", "x8", "2x", "0", "2x0", "-1", "1.5", "two", "", "2*8", "1" * 30])
def test_what_is_no_number_of_accelerators(text):
    with pytest.raises(PlanError, match="is not a number of accelerators"):
        parse_num_accelerators(text)


def test_tokens_per_day():
    assert tokens_per_day(100, 2048) == 17_694_720_000
    assert tokens_per_day(100, 2048, 0.9) == pytest.approx(15_925_248_000)
    assert tokens_per_day(100, 2048, 0.0) == 0


@pytest.mark.parametrize("goodput", [-0.1, 1.1, float("nan")])
def test_goodput_is_a_share(goodput):
    with pytest.raises(PlanError, match="from 0 to 1"):
        tokens_per_day(100, 2048, goodput)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1e-320])
def test_rates_are_positive(value):
    with pytest.raises(PlanError, match=r"^Samples per second is .*; give a positive number"):
        tokens_per_day(value, 2048)
    with pytest.raises(PlanError, match=r"^The peak FLOP/s of an accelerator"):
        throughput(1, 1, 6.0, 1, value)


def test_mfu():
    result = throughput(100, 2048, 420e9, 512, 312e12)
    assert result.tokens_per_s == 204_800
    assert result.tokens_per_day == 17_694_720_000
    assert result.achieved_flops_per_s == pytest.approx(86_016e12)
    assert result.peak_flops_per_s == pytest.approx(159_744e12)
    assert result.mfu == pytest.approx(0.53846, abs=1e-5)


@given(st.floats(1e-3, 1e6), st.integers(1, 10**6), st.integers(1, 10**5))
def test_mfu_is_a_ratio(rate, seq_len, devices):
    one = throughput(rate, seq_len, 6e9, devices, 1e15)
    assert one.mfu * one.peak_flops_per_s == pytest.approx(rate * seq_len * 6e9)
    assert throughput(rate, seq_len, 6e9, 2 * devices, 1e15).mfu == pytest.approx(one.mfu / 2)


def test_flops_of_a_token_of_llama_2_7b():
    # 32 layers of 4 x 4096^2 + 3 x 4096 x 11008 and a head of 32000 x 4096; causal attention over 4096 tokens
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
    attention = 32 * 2 * 4096 * 4096
    assert model_flops_per_token(load_model("llama-2-7b"), 4096) == 6 * matrices + 3 * attention


def test_only_active_experts_count():
    model = load_model("mixtral-8x7b")
    # 12.9 B active parameters, of which the embedding (32000 x 4096) multiplies nothing
    flops = model_flops_per_token(model, 1)
    assert flops == pytest.approx(6 * (12.88e9 - 32000 * 4096), rel=2e-3)


def test_latent_attention_counts_both_its_widths():
    model = load_model("deepseek-v3")
    longer = model_flops_per_token(model, 8192) - model_flops_per_token(model, 4096)
    # per token more: 4096 / 2 keys x (192 + 128) x 2 FLOPs x 128 heads, in 61 layers and the one that predicts a
    # second token, three times
    assert longer == pytest.approx(3 * 62 * 128 * 2 * (192 + 128) * 2048)


def test_a_window_limits_what_is_attended():
    sizes = {"num_layers": 3, "hidden_size": 8, "num_heads": 2, "vocab_size": 16, "position": "rope"}
    full = ModelSpec.from_mapping(sizes)
    windowed = ModelSpec.from_mapping({**sizes, "sliding_window": 64, "num_sliding_window_layers": 2})
    assert model_flops_per_token(windowed, 64) == model_flops_per_token(full, 64)
    saved = model_flops_per_token(full, 1000) - model_flops_per_token(windowed, 1000)
    pairs = sum(max(0, i - 64) for i in range(1, 1001))
    assert saved == pytest.approx(3 * 2 * 4 * 8 * pairs / 1000, rel=2e-3)  # the convention drops half a diagonal


def test_peaks_of_the_catalog():
    assert dense_peak_flops_per_s(load_accelerator("h100-sxm"), "bf16") == 989.4e12
    with pytest.raises(PlanError, match=r"has no bf61 peak of 'h100-sxm'. Did you mean 'bf16'"):
        dense_peak_flops_per_s(load_accelerator("h100-sxm"), "bf61")
    with pytest.raises(PlanError, match=r"has no fp4 peak of 'h100-sxm'. It has those of fp64, .*, fp8, int8.$"):
        dense_peak_flops_per_s(load_accelerator("h100-sxm"), "fp4")
