import math

import pytest

from gnomon.profile.measurement import OperatorMeasurement
from gnomon.report import figures
from gnomon.report.compare import compare, memory_terms, time_terms
from gnomon.report.figures._base import label_of, log_axis
from gnomon.report.figures.operators import bandwidth_of
from gnomon.spec import SizeCurve
from report_fixtures import ACCELERATOR, CLUSTER, fake_estimate, fake_hardware, fake_measurement, fake_metrics

COMPARISON = compare(fake_estimate(), fake_measurement())


def test_every_axis_names_its_unit():
    drawn = (
        figures.waterfall(COMPARISON),
        figures.time_bars(COMPARISON.time),
        figures.memory_bars(COMPARISON.memory),
        figures.loss_curve(fake_metrics()),
        figures.step_times(fake_metrics()),
        figures.roofline(fake_estimate()),
        figures.top_operators(fake_measurement()),
    )
    titles = [figure.layout.xaxis.title.text + figure.layout.yaxis.title.text for figure in drawn]
    for title, unit in zip(titles, ("(ms)", "(ms)", "(MiB)", "(nats", "(ms)", "GFLOP/s", "(ms)"), strict=True):
        assert unit in title


def test_time_bars_show_both_sides_in_milliseconds():
    predicted, measured = figures.time_bars(COMPARISON.time).data
    assert sum(predicted.x) == pytest.approx(521.5)
    assert sum(measured.x) == pytest.approx(567.6)


def test_bars_of_one_side_only():
    assert [trace.name for trace in figures.time_bars(time_terms(fake_estimate(), None)).data] == ["predicted"]
    bars = figures.memory_bars(memory_terms(None, fake_measurement())).data
    assert {tuple(bar.y) for bar in bars} == {("measured",)}


def test_stacked_memory_adds_up_to_the_peak():
    bars = [trace for trace in figures.memory_bars(COMPARISON.memory).data if trace.type == "bar"]
    assert sum(bar.x[1] for bar in bars) * 2**20 == pytest.approx(fake_measurement().peak_memory_bytes)


@pytest.mark.parametrize(("capacity", "lines"), [(600 * 2**20, 1), (80 * 2**30, 0), (None, 0)])
def test_the_capacity_is_drawn_only_when_it_is_in_reach(capacity, lines):
    figure = figures.memory_bars(COMPARISON.memory, capacity)
    assert len(figure.layout.shapes) == lines


def test_the_loss_curve_has_training_evaluation_and_the_uniform_guess():
    figure = figures.loss_curve(fake_metrics(60), vocab_size=256)
    training, evaluation = figure.data
    assert (len(training.x), list(evaluation.x)) == (60, [20, 40, 60])
    assert training.customdata[0] == "4,096"
    assert figure.layout.shapes[0].y0 == pytest.approx(math.log(256))


def test_a_slow_first_step_does_not_flatten_the_step_times():
    assert figures.step_time_limit([1710.0] + [570.0] * 20, predicted_s=0.52) == pytest.approx(1.4 * 570.0)
    assert figures.step_time_limit([500.0, 570.0], predicted_s=None) == pytest.approx(1.15 * 570.0)
    assert figures.step_time_limit([]) == 1.0


def test_the_roofline_bends_where_bandwidth_meets_peak():
    figure = figures.roofline(fake_estimate())
    roof = figure.data[-1]
    assert roof.x[1] == pytest.approx(78.2 / 11.4)
    assert roof.y[1] == roof.y[2] == pytest.approx(78.2)
    assert all(flops > 0 for trace in figure.data for flops in trace.y)


def test_a_device_without_figures_has_no_roof():
    accelerator = ACCELERATOR.model_copy(update={"peak_flops": {}, "memory_bandwidth_bytes_per_s": None})
    figure = figures.roofline(fake_estimate(cluster=CLUSTER.model_copy(update={"accelerator": accelerator})))
    assert not any((trace.name or "").startswith("roof") for trace in figure.data)


def test_a_device_with_a_peak_alone_has_a_flat_roof():
    accelerator = ACCELERATOR.model_copy(update={"memory_bandwidth_bytes_per_s": None})
    figure = figures.roofline(fake_estimate(cluster=CLUSTER.model_copy(update={"accelerator": accelerator})))
    assert figure.data[-1].name == "roof: 78.2 GFLOP/s"
    assert set(figure.data[-1].y) == {78.2}


def test_operators_with_the_same_name_or_a_long_one_keep_a_bar_each():
    names = ["aten::mm", "aten::mm", "void kernel<" + "x" * 300 + ", 1>", "void kernel<" + "x" * 301 + ", 1>"]
    operators = tuple(
        OperatorMeasurement(name=name, term=term, calls=1, time_s=0.01 * (4 - i))
        for i, (name, term) in enumerate(zip(names, ("matmul_s", "embedding_head_s", "data_s", "data_s"), strict=True))
    )
    figure = figures.top_operators(fake_measurement(operators=operators))
    labels = [label for trace in figure.data for label in trace.y]
    assert len(set(labels)) == 4
    assert max(label.count("<br>") for label in labels) <= 1


def test_a_roof_without_a_vendor_bandwidth_takes_the_fastest_large_memory_operator():
    accelerator = ACCELERATOR.model_copy(update={"memory_bandwidth_bytes_per_s": None})
    curves = {
        "copy.fp32": SizeCurve(size=(1e6, 64e6), rate=(90e9, 9e9)),
        "relu.fp32": SizeCurve(size=(1e6, 64e6), rate=(90e9, 12e9)),
        "data": SizeCurve(size=(1e3,), rate=(99e9,)),
    }
    efficiency = fake_hardware().shares[1].model_copy(update={"memory": curves})
    cluster = CLUSTER.model_copy(update={"accelerator": accelerator, "efficiency": efficiency})
    assert bandwidth_of(fake_estimate(cluster=cluster)) == 12e9


def test_the_axes_of_the_roofline_hold_the_points_and_the_roof_between_marks():
    figure = figures.roofline(fake_estimate())
    for name, axis in (("x", figure.layout.xaxis), ("y", figure.layout.yaxis)):
        values = [value for trace in figure.data for value in trace[name]]
        assert 10 ** axis.range[0] < min(values) < max(values) < 10 ** axis.range[1]
        assert len(axis.tickvals) >= 2
        assert all(axis.range[0] <= math.log10(place) <= axis.range[1] for place in axis.tickvals)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((100, 450), ["100", "200", "300", "400"]),
        ((100, 950), ["100", "200", "500", "1000"]),
        ((3, 400), ["5", "10", "20", "50", "100", "200", "500"]),
        ((1.0, 5e6), ["1", "10", "100", "1000", "10k", "100k", "1M", "10M"]),
        ((7.0, 7.0), ["6", "7", "8"]),
        ((1.234, 1.235), ["1.234", "1.235"]),
    ],
)
def test_marks_of_a_logarithmic_axis(values, texts):
    assert list(log_axis(values)["ticktext"]) == texts


def test_labels_are_escaped_and_wrapped_after_separators():
    assert label_of("<b>&") == "&lt;b&gt;&amp;"
    assert label_of("aten::native_layer_norm_backward", 24) == "aten::native_layer_norm_<br>backward"
