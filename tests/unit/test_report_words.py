import pytest

from gnomon.report.comparison import Term
from gnomon.report.words import (
    error_words,
    format_difference,
    format_error,
    format_time,
    format_value,
    join_words,
    plural,
    share_words,
    three_digits,
)
from gnomon.units import format_seconds


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.2124, "s", "212 ms"),
        (513.06 * 2**20, "bytes", "513 MiB"),
        (38642.3, "1/s", "38,642"),
        (1.234, "count", "1.23"),
        (0.412, "fraction", "41.2%"),
        (None, "s", "–"),
    ],
)
def test_values_carry_their_unit(value, unit, text):
    assert format_value(value, unit) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(-0.0031, "s", "−3.1 ms"), (0.0, "s", "0 s"), (-0.042, "fraction", "−4.2 points"), (None, "s", "–")],
)
def test_differences_carry_their_sign(value, unit, text):
    assert format_difference(value, unit) == text


def test_a_difference_of_minutes_is_negated_as_a_whole():
    assert format_difference(-75.0, "s") == "−1 min 15 s"


@pytest.mark.parametrize(
    ("error", "text"), [(0.0831, "+8.3%"), (-0.0831, "−8.3%"), (14.717, "+1,472%"), (-1e-6, "0.0%"), (None, "–")]
)
def test_errors_are_signed_percentages(error, text):
    assert format_error(error) == text


@pytest.mark.parametrize(
    ("predicted", "measured", "text"),
    [
        (0.9, 1.0, "10.0% too low"),
        (1.1, 1.0, "10.0% too high"),
        (2.9, 1.0, "190% too high"),
        (1.0, 1.0, "exact"),
        (1.0, 0.0, "not comparable"),
    ],
)
def test_error_in_words(predicted, measured, text):
    assert error_words(Term(name="x", label="x", unit="s", predicted=predicted, measured=measured)) == text


@pytest.mark.parametrize(
    ("share", "words"), [(0.66, "two thirds"), (0.5, "half"), (0.97, "nearly all"), (0.84, "84%"), (0.24, "a quarter")]
)
def test_shares_in_words(share, words):
    assert share_words(share) == words


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("1023.40 MiB", "1023 MiB"),
        ("99.96 GiB", "100 GiB"),
        ("12.57 MiB", "12.6 MiB"),
        ("84.0 B", "84 B"),
        ("12", "12"),
        ("0 B", "0 B"),
    ],
)
def test_three_digits(text, short):
    assert three_digits(text) == short


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05.123Z"])
def test_times_are_utc(text):
    assert format_time(text) == "2026-01-02 03:04:05 UTC"


def test_lists_and_plurals():
    assert join_words(["a", "b", "c"]) == "a, b and c"
    assert join_words([]) == ""
    assert (plural(1, "rank"), plural(2048, "rank")) == ("1 rank", "2,048 ranks")


def test_seconds_just_below_a_unit_do_not_turn_into_an_exponent():
    assert format_seconds(0.9997) == "1 s"
    assert format_seconds(0.9991) == "999 ms"
