import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.report.compare import compare
from gnomon.report.figures import waterfall
from gnomon.report.words import format_difference, format_value, three_digits
from gnomon.spec import TIME_TERMS, TimeBreakdown
from gnomon.units import format_bytes
from report_fixtures import fake_estimate, fake_measurement

seconds = st.floats(min_value=0.0, max_value=100.0, allow_subnormal=False)
breakdowns = st.builds(TimeBreakdown, **dict.fromkeys(TIME_TERMS, seconds)).filter(lambda time: time.total_s > 0)


@settings(max_examples=30)
@given(predicted=breakdowns, measured=breakdowns, rest_s=st.floats(min_value=0.0, max_value=10.0))
def test_the_waterfall_leads_from_predicted_to_measured(predicted, measured, rest_s):
    measurement = fake_measurement(time=measured, step_time_s=measured.total_s + rest_s)
    figure = waterfall(compare(fake_estimate(time=predicted, step_time_s=predicted.total_s), measurement))
    bars = figure.data[0]
    assert bars.x[0] == pytest.approx(1e3 * predicted.total_s)
    assert bars.x[-1] == pytest.approx(1e3 * measurement.step_time_s)
    # what is below a thousandth of the total may stay unattributed
    assert sum(bars.x[:-1]) == pytest.approx(bars.x[-1], rel=2e-3, abs=2e-3 * max(bars.x[0], bars.x[-1]))
    for index in range(1, len(bars.x) - 1):
        assert bars.base[index] == pytest.approx(sum(bars.x[:index]))


@settings(max_examples=50)
@given(predicted=breakdowns, measured=breakdowns)
def test_every_comparison_explains_itself(predicted, measured):
    comparison = compare(
        fake_estimate(time=predicted, step_time_s=predicted.total_s),
        fake_measurement(time=measured, step_time_s=measured.total_s),
    )
    assert all(sentence.endswith(".") for sentence in comparison.summary)
    assert all(term.explanation.endswith(".") for term in (*comparison.time, *comparison.memory))


@given(
    st.floats(min_value=-1e15, max_value=1e15, allow_subnormal=False),
    st.sampled_from(["s", "bytes", "1/s", "fraction"]),
)
def test_printed_quantities_are_short_and_signed_once(value, unit):
    text = format_difference(value, unit)
    assert text.count("−") + text.count("-") + text.count("+") <= 1 + text.count("e")
    assert format_value(abs(value), unit)


@given(st.floats(min_value=1.0, max_value=1e15))
def test_three_digits_keep_the_size(value):
    number, _, unit = three_digits(format_bytes(value)).partition(" ")
    scale = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}[unit]
    assert math.isclose(float(number) * scale, value, rel_tol=0.006, abs_tol=0.5 if unit == "B" else 0.0)
