"""Predictions of table rows: from the configuration alone, for the batch as stated, all at once as one by one."""

import re
from pathlib import Path

import numpy as np
import pytest

from gnomon.errors import PlanError
from gnomon.plan.evaluate import evaluate
from gnomon.plan.published.columns import is_outcome
from gnomon.plan.published.predict import predict, prepare
from gnomon.plan.published.table import read_table

FILE = Path(__file__).parents[1] / "fixtures" / "published_small.csv"


@pytest.fixture(scope="module")
def rows() -> dict:
    return {row["id"]: row for row in read_table(FILE).rows()}


def numbers(prediction) -> tuple:
    return (
        prediction.refused,
        prediction.step_time_s,
        prediction.tokens_per_s_per_accel,
        prediction.mfu_pct,
        prediction.memory_gb_per_accel,
    )


@pytest.mark.parametrize("value", [None, "1e-3", "nonsense"])
def test_outcomes_are_not_read(rows: dict, value: str | None) -> None:
    columns = {column for column in next(iter(rows.values())) if is_outcome(column)}
    assert {"step_time_s", "tokens_per_s_per_accel", "tflops_per_accel", "mfu_pct", "hfu_pct", "notes"} <= columns
    assert {"mem_gb_per_accel", "derived_step_time_s", "chk_ratio", "derived_dp"} <= columns
    changed = [{k: value if k in columns else v for k, v in row.items()} for row in rows.values()]
    absent = [{k: v for k, v in row.items() if k not in columns} for row in rows.values()]
    before = [repr(numbers(p)) for p in predict(list(rows.values()))]
    assert [repr(numbers(p)) for p in predict(changed)] == before
    assert [repr(numbers(p)) for p in predict(absent)] == before
    assert sum("None" in text.split(",")[0] for text in before) >= 12


def test_a_row_alone_gives_what_it_gives_among_others(rows: dict) -> None:
    together = predict(list(rows.values()))
    for row, expected in zip(rows.values(), together, strict=True):
        alone = predict([row])[0]
        assert alone.refused == expected.refused
        if alone.refused is None:
            np.testing.assert_allclose(numbers(alone)[1:], numbers(expected)[1:], rtol=1e-12, err_msg=row["id"])


def test_rates_are_of_the_stated_batch(rows: dict) -> None:
    full, partial = predict([rows["gpt-a"], rows["gpt-c"]])
    # 60 sequences on 8 ranks with micro-batches of 4: one rank has two, as with 64
    assert partial.step_time_s == full.step_time_s
    assert full.tokens_per_s_per_accel == pytest.approx(64 * 2048 / 8 / full.step_time_s)
    assert partial.tokens_per_s_per_accel == pytest.approx(60 * 2048 / 8 / full.step_time_s)
    assert full.remarks == ()
    assert partial.remarks == ("gbs is no multiple of dp x micro-batch = 8 x 4: the busiest rank runs 2 micro-batches",)


def test_mfu_in_the_conventions_of_the_row(rows: dict) -> None:
    ours, stated = predict([rows["gpt-a"], rows["palm-mfu"]])
    # GPT: 72 h^2 per layer and token in products, 6 h s in causal attention, 6 V h in the head
    flops = 24 * (72 * 2048**2 + 6 * 2048 * 2048) + 6 * 51200 * 2048
    assert ours.mfu_pct == pytest.approx(100 * ours.tokens_per_s_per_accel * flops / 312e12)
    # Llama 8B: 6 N with grouped queries and three matrices per feed-forward, and 12 h s for the full square
    layer = 4096 * (2 * 4096 + 2 * 1024) + 3 * 4096 * 14336
    flops = 6 * (32 * layer + 128256 * 4096) + 12 * 32 * 4096 * 8192
    assert stated.mfu_pct == pytest.approx(100 * stated.tokens_per_s_per_accel * flops / 459e12)


def test_memory_is_of_the_kind_and_unit_of_the_row(rows: dict) -> None:
    kinds = ("", "GB, nvidia-smi", "max_reserved GiB", "max_allocated MiB")
    device, same, reserved, allocated = (
        predict([{**rows["gpt-a"], "mem_kind": kind}])[0].memory_gb_per_accel for kind in kinds
    )
    case = prepare(rows["gpt-a"]).cases
    found = evaluate(case)
    tensors = float(found.memory["first"].tensors[0])
    overhead, context = float(case.storage.memory_overhead[0]), float(case.storage.framework_bytes[0])
    assert device == same == pytest.approx((tensors * (1 + overhead) + context) / 1e9)
    assert reserved == pytest.approx(tensors * (1 + overhead) / 2**30)
    assert allocated == pytest.approx(tensors / 2**20)


def test_micro_batches_that_interleaving_cannot_take_lie_on_the_line_of_those_it_can(rows: dict) -> None:
    row = rows["llama-interleaved"]  # pp 4, dp 4, micro-batch 1: gbs 40 makes 10 micro-batches
    ten, twelve, sixteen = predict([{**row, "gbs": gbs} for gbs in ("40", "48", "64")])
    slope = (sixteen.step_time_s - twelve.step_time_s) / 4
    assert ten.step_time_s == pytest.approx(twelve.step_time_s - 2 * slope)
    assert ten.remarks == (
        "the micro-batches are no multiple of pp: priced on the line through the next two multiples",
    )
    assert twelve.remarks == ()


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("hidden", "", "column hidden is blank"),
        ("hidden", "0", "column hidden is 0; it must be greater than 0"),
        ("gbs", "0", "column gbs is 0"),
        ("n_accel", "-8", "column n_accel is -8"),
        ("tp", "-1", "column tp is -1; it must be greater than 0"),
        ("tp", "two", "column tp is 'two'; a number is needed"),
        ("seq_len", "nan", "column seq_len is 'nan'; a number is needed"),
        ("seq_len", "inf", "column seq_len is 'inf'; a number is needed"),
        ("tp", "1.5", "column tp is 1.5; a whole number is needed"),
        ("tp", "3", "does not divide n_accel=8"),
        ("hardware", "Z9000", "hardware is 'Z9000', which the catalog does not know"),
        ("precision", "int3", "column precision is 'int3'"),
        ("task", "LoRA", "LoRA"),
    ],
)
def test_a_bad_row_is_refused_by_name_and_the_others_go_on(rows: dict, column: str, value: str, words: str) -> None:
    good = rows["gpt-a"]
    before, bad, after = predict([good, {**good, column: value}, good])
    assert words in (bad.refused or "")
    assert np.isnan(bad.step_time_s)
    assert before.refused is None
    assert numbers(before) == numbers(after)
    with pytest.raises(PlanError, match=re.escape(words)):
        prepare({**good, column: value})


def test_numbers_too_large_are_refused(rows: dict) -> None:
    huge = {**rows["gpt-a"], "seq_len": "1" + "0" * 200}
    assert predict([huge])[0].refused is not None
