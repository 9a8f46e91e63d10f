import pytest

from gnomon.errors import ReportError
from gnomon.report.compare import compare, headline_terms
from gnomon.report.comparison import Comparison, Term
from gnomon.spec import MEMORY_TERMS, OPTIONAL_TERMS, TIME_TERMS, Layout
from report_fixtures import (
    MEASURED_TIME,
    MODEL,
    PREDICTED_MEMORY,
    PREDICTED_TIME,
    WORKLOAD,
    fake_estimate,
    fake_measurement,
)


def term(comparison: Comparison, name: str) -> Term:
    return next(t for t in (*comparison.headline, *comparison.time, *comparison.memory) if t.name == name)


def test_headline_and_terms_come_in_the_order_of_the_nouns():
    comparison = compare(fake_estimate(), fake_measurement())
    names = ["step_time_s", "tokens_per_s", "mfu", "peak_memory_bytes", "peak_tensor_bytes"]
    assert [t.name for t in comparison.headline] == names
    assert [t.name for t in comparison.time] == [t for t in TIME_TERMS if t not in OPTIONAL_TERMS]
    assert [t.name for t in comparison.memory] == list(MEMORY_TERMS)


def test_terms_add_up_to_the_headline_on_both_sides():
    comparison = compare(fake_estimate(), fake_measurement())
    for terms, total in ((comparison.time, "step_time_s"), (comparison.memory, "peak_memory_bytes")):
        for side in ("predicted", "measured"):
            assert sum(getattr(t, side) for t in terms) == pytest.approx(getattr(term(comparison, total), side))


def test_errors_are_relative_to_the_measurement():
    comparison = compare(fake_estimate(step_time_s=0.9), fake_measurement(step_time_s=1.0))
    assert term(comparison, "step_time_s").relative_error == pytest.approx(-0.1)
    assert "the prediction was 10.0% too low" in comparison.summary[0]


def test_what_the_terms_leave_of_the_total_is_shown_as_a_term():
    measurement = fake_measurement(step_time_s=MEASURED_TIME.total_s + 0.05)
    rest = compare(fake_estimate(), measurement).time[-1]
    assert rest.name == "unattributed_s"
    assert (rest.predicted, rest.measured) == (0.0, pytest.approx(0.05))


def test_the_largest_cause_comes_first_with_its_numbers():
    summary = compare(fake_estimate(), fake_measurement()).summary
    assert summary[1] == "Two thirds of the gap is matrix multiply: 350 ms instead of 318 ms."
    assert summary[2] == "Then normalisation and elementwise (+10.7 ms)."


def test_terms_that_work_against_the_gap_are_named():
    time = PREDICTED_TIME.model_copy(update={"matmul_s": 0.4, "attention_s": 0.0332})
    measurement = fake_measurement(time=time, step_time_s=time.total_s)
    sentences = compare(fake_estimate(), measurement).summary
    assert sentences[1].startswith("The largest cause is matrix multiply: 400 ms instead of 318 ms (+82 ms, against")
    assert sentences[2] == "Against the gap: attention (−20 ms)."


def test_errors_that_cancel_are_not_hidden_by_a_right_total():
    time = PREDICTED_TIME.model_copy(
        update={"matmul_s": PREDICTED_TIME.matmul_s - 0.04, "elementwise_s": PREDICTED_TIME.elementwise_s + 0.0399}
    )
    summary = compare(fake_estimate(), fake_measurement(time=time, step_time_s=time.total_s)).summary
    assert "exact" in summary[0]
    assert summary[1].startswith("Errors of single terms cancel: matrix multiply (−40 ms)")


def test_a_prediction_that_is_right_everywhere_says_so():
    measurement = fake_measurement(time=PREDICTED_TIME, step_time_s=PREDICTED_TIME.total_s)
    assert "No single term is far off." in compare(fake_estimate(), measurement).summary


def test_an_unknown_mfu_stays_unknown():
    comparison = compare(fake_estimate(mfu=None), fake_measurement(mfu=None))
    assert term(comparison, "mfu").difference is None
    assert term(comparison, "mfu").relative_error is None
    assert "MFU is unknown, because the peak of the device is." in comparison.summary


def test_the_peak_behind_mfu_is_named():
    comparison = compare(fake_estimate(), fake_measurement())
    assert "highest matrix-multiply rate measured by gnomon calibrate" in term(comparison, "mfu").explanation


@pytest.mark.parametrize(
    ("predicted", "measured", "words"),
    [
        (0.0, 0.2, "The plan has no cost for this; 200 ms were measured."),
        (0.2, 0.0, "Planned for, but none was measured; look for it under another term."),
        (0.0, 0.0, "Negligible on both sides."),
    ],
)
def test_a_term_that_one_side_does_not_have(predicted, measured, words):
    before = PREDICTED_TIME.model_copy(update={"data_s": predicted})
    after = MEASURED_TIME.model_copy(update={"data_s": measured})
    estimate = fake_estimate(time=before, step_time_s=before.total_s)
    measurement = fake_measurement(time=after, step_time_s=after.total_s)
    assert term(compare(estimate, measurement), "data_s").explanation == words


def test_explanations_give_rates_for_work_and_bytes_for_memory():
    comparison = compare(fake_estimate(), fake_measurement())
    # 23.1 GFLOP of the fixture's matrix products over 318 ms and 350 ms
    expected = "Slower than predicted: 23.1 GFLOP at 66.1 GFLOP/s, predicted 72.6 GFLOP/s."
    assert term(comparison, "matmul_s").explanation == expected
    # 13.18 MB over 3 294 720 parameters
    assert "3.29 M parameters at 4.00 bytes each" in term(comparison, "weights_bytes").explanation
    # 188 MiB over 4 x 256 tokens
    assert "188 KiB per token" in term(comparison, "activations_bytes").explanation


def test_the_slowdown_of_the_profiler_is_said_when_it_matters():
    slow = compare(fake_estimate(), fake_measurement(profiled_step_time_s=0.852)).summary
    assert any(sentence.startswith("The profiler made steps 50% longer") for sentence in slow)
    quick = compare(fake_estimate(), fake_measurement(profiled_step_time_s=0.57)).summary
    assert not any("profile" in sentence.lower() for sentence in quick)


def test_a_disturbed_run_is_called_so():
    disturbed = fake_measurement(profiled_step_time_s=0.08, step_time_p10_s=0.08, step_time_p90_s=1.1)
    summary = " ".join(compare(fake_estimate(), disturbed).summary)
    assert "So wide a spread points to other work on the machine." in summary
    assert "Profiled steps took 80 ms, less than the 568 ms of the run" in summary


def test_idle_time_of_one_rank_is_not_blamed_on_others():
    estimate, measurement = fake_estimate(layout=Layout()), fake_measurement(layout=Layout())
    assert "other ranks" not in term(compare(estimate, measurement), "idle_s").explanation
    assert "other ranks" in term(compare(fake_estimate(), fake_measurement()), "idle_s").explanation


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": MODEL.model_copy(update={"num_layers": 6})}, "model.num_layers is 4 in the estimate and 6"),
        ({"layout": Layout(dp=1)}, "layout.dp is 2 in the estimate and 1"),
        ({"workload": WORKLOAD.model_copy(update={"precision": "bf16"})}, "workload.precision is 'fp32'"),
    ],
)
def test_different_work_is_refused_with_what_differs(change, named):
    with pytest.raises(ReportError) as error:
        compare(fake_estimate(), fake_measurement(**change))
    assert named in str(error.value)
    assert "config.yaml" in str(error.value)


def test_another_name_for_the_same_model_is_the_same_work():
    compare(fake_estimate(), fake_measurement(model=MODEL.model_copy(update={"name": "other", "source": "elsewhere"})))


def test_one_side_alone_gives_terms_without_the_other():
    assert [t.measured for t in headline_terms(fake_estimate(), None)] == [None] * 5
    assert headline_terms(None, fake_measurement())[3].measured == fake_measurement().peak_memory_bytes
    assert fake_estimate().memory == PREDICTED_MEMORY


def test_a_comparison_survives_its_file(tmp_path):
    comparison = compare(fake_estimate(), fake_measurement())
    assert Comparison.load(comparison.save(tmp_path / "comparison.json")) == comparison
