"""Curves give their points exactly, interpolate between them in the logarithm and keep their edges outside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.errors import SpecError
from gnomon.spec import CollectiveCurve, GridCurve, SizeCurve

CURVE = SizeCurve(size=(1.0, 100.0, 10_000.0), rate=(2.0, 8.0, 4.0))
GRID = GridCurve(axes=((1.0, 100.0), (1.0, 10.0, 100.0)), rate=(1.0, 2.0, 4.0, 16.0, 32.0, 64.0))


@pytest.mark.parametrize(("size", "rate"), [(1.0, 2.0), (100.0, 8.0), (10_000.0, 4.0)])
def test_size_curve_goes_through_its_points(size, rate):
    assert CURVE.at(size) == pytest.approx(rate)


def test_size_curve_is_linear_in_the_logarithms():
    assert CURVE.at(10.0) == pytest.approx(4.0)  # halfway from 1 to 100: the geometric mean of 2 and 8
    assert CURVE.at(1000.0) == pytest.approx(np.sqrt(32.0))


def test_size_curve_keeps_its_edges():
    assert CURVE.at(np.array([0.0, 1e-9, 0.5])) == pytest.approx([2.0, 2.0, 2.0])
    assert CURVE.at(1e30) == pytest.approx(4.0)


def test_size_curve_keeps_the_shape_of_its_argument():
    assert CURVE.at(np.ones((2, 3))).shape == (2, 3)
    assert CURVE.at(5).shape == ()


@given(st.floats(1.0, 100.0), st.floats(1.0, 100.0))
def test_size_curve_is_monotone_between_points(a, b):
    low, high = sorted((a, b))
    assert CURVE.at(low) <= CURVE.at(high) + 1e-12


def test_constant_size_curve():
    assert SizeCurve.constant(3.0).at([1e-3, 1.0, 1e12]) == pytest.approx([3.0, 3.0, 3.0])


@pytest.mark.parametrize(
    ("x", "y", "rate"), [(1, 1, 1.0), (1, 10, 2.0), (1, 100, 4.0), (100, 1, 16.0), (100, 10, 32.0), (100, 100, 64.0)]
)
def test_grid_curve_goes_through_its_points_in_row_major_order(x, y, rate):
    assert GRID.at(x, y) == pytest.approx(rate)


def test_grid_curve_is_bilinear_in_the_logarithms():
    assert GRID.at(10, 1) == pytest.approx(4.0)
    assert GRID.at(10, np.sqrt(10)) == pytest.approx(4.0 * np.sqrt(2.0))


def test_grid_curve_keeps_its_edges():
    assert GRID.at(1e-9, 0) == pytest.approx(1.0)
    assert GRID.at(1e9, 1e9) == pytest.approx(64.0)
    assert GRID.at(10, 1e9) == pytest.approx(16.0)


def test_grid_curve_broadcasts():
    assert GRID.at(np.ones((4, 1)), np.ones(3)).shape == (4, 3)


@given(st.floats(0.1, 1000.0), st.floats(0.1, 1000.0), st.floats(0.1, 1000.0))
def test_grid_curve_is_monotone_between_points(x, a, b):
    low, high = sorted((a, b))
    assert GRID.at(x, low) <= GRID.at(x, high) * (1 + 1e-12)


@given(st.floats(1e-3, 1e9), st.floats(1e-3, 1e9))
def test_grid_curve_stays_within_its_rates(x, y):
    assert 1.0 - 1e-9 <= GRID.at(x, y) <= 64.0 + 1e-9


def test_a_grid_of_one_axis_equals_a_size_curve():
    grid = GridCurve(axes=(CURVE.size,), rate=CURVE.rate)
    points = np.geomspace(0.1, 1e6, 50)
    assert grid.at(points) == pytest.approx(CURVE.at(points))


def test_constant_grid_curve():
    assert GridCurve.constant(5.0, 3).at(1, 1e6, [2, 3]) == pytest.approx([5.0, 5.0])


def test_collective_is_latency_plus_bytes_over_bandwidth():
    curve = CollectiveCurve(ranks=2, latency_s=1e-5, bandwidth=SizeCurve.constant(1e9))
    assert curve.time_s([0, 1e6]) == pytest.approx([0.0, 1e-5 + 1e-3])


@pytest.mark.parametrize(
    ("curve", "data", "message"),
    [
        (SizeCurve, {"size": [1, 2], "rate": [1]}, "size has 2 points and rate 1; they must match"),
        (SizeCurve, {"size": [], "rate": []}, "size has 0 points"),
        (SizeCurve, {"size": [2, 1], "rate": [1, 1]}, "size must increase strictly"),
        (SizeCurve, {"size": [1, 2], "rate": [1, 0]}, "greater than 0"),
        (GridCurve, {"axes": [[1, 2]], "rate": [1]}, "the axes span 2 points but rate has 1"),
        (GridCurve, {"axes": [[1, 1]], "rate": [1, 1]}, "every axis must increase strictly"),
        (GridCurve, {"axes": [], "rate": [1]}, "the axes span 1 points but rate has 1"),
    ],
)
def test_impossible_curves_are_refused(curve, data, message):
    with pytest.raises(SpecError) as caught:
        curve.from_mapping(data)
    assert message in str(caught.value)
