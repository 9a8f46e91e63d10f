"""What a search says of cost and memory, and the picture of its front."""

from io import StringIO

import pytest
from rich.console import Console

from gnomon.plan.planner import plan
from gnomon.plan.search import SearchSpace, search
from gnomon.plan.search.explain import compare
from gnomon.plan.search.render import PARETO_ROWS, render_search
from gnomon.report.figures import plan as plan_figures
from gnomon.report.palette import MEASURED
from gnomon.report.panels import make_panel
from gnomon.report.search_page import render_search_page
from gnomon.spec import Layout, ModelSpec, Workload
from gnomon.spec.catalog import load_cluster

MODEL = ModelSpec(name="m", num_layers=8, hidden_size=1024, num_heads=16, vocab_size=32000, max_seq_len=2048)
CLUSTER = load_cluster("dgx-h100", 2)
WORKLOAD = Workload(seq_len=2048, global_batch=64, micro_batch=1, precision="bf16", stack="megatron-core")
SPACE = SearchSpace(tp=(1, 2, 4), pp=(1, 2, 4), zero_stage=(0, 1), schedule=("1f1b",))


def found(**settings):
    return search(MODEL, CLUSTER, WORKLOAD, space=SPACE, **settings)


def text_of(result):
    console = Console(file=StringIO(), width=300)
    console.print(render_search(result))
    return console.file.getvalue()


@pytest.fixture(scope="module")
def cheapest():
    return found(accelerators=[4, 8, 16], objective="cost")


def test_each_number_of_accelerators_has_its_own_line(cheapest):
    figure = plan_figures.pareto(cheapest.pareto, cheapest.best[0].estimate, "the best")
    *lines, diamond = figure.data
    assert [line.name for line in lines] == ["4 accelerators", "8 accelerators", "16 accelerators"]
    assert sum(len(line.x) for line in lines) == len(cheapest.pareto)
    for line in lines:
        assert list(line.y) == sorted(line.y)
        assert list(line.x) == sorted(line.x, reverse=True)  # no step goes back
    colours = [line.line.color for line in lines]
    assert len({*colours, MEASURED}) == 4
    assert diamond.marker.color == MEASURED
    legend = [entry.label for entry in make_panel("k", "t", "c", figure).legend]
    assert legend == [*(line.name for line in lines), "the best"]


def test_one_number_of_accelerators_has_the_front_that_is_fastest_for_its_memory():
    result = found()
    line, _ = plan_figures.pareto(result.pareto, result.best[0].estimate, "the best").data
    assert line.name == "fastest for its memory"
    assert len(line.x) == len(result.pareto)


def test_accelerators_and_cost_stand_in_both_tables_where_they_tell_layouts_apart(cheapest):
    assert text_of(cheapest).count("accelerator-hours") == 3  # two columns, and what the percentages are of
    assert text_of(cheapest).count("┃ accelerators ┃") == 2
    priced = found(price_per_accelerator_hour=2.0)
    assert text_of(priced).count("cost per step") == 2
    plain = text_of(found())
    assert plain.count("accelerator-hours") == 1
    assert "┃ accelerators ┃" not in plain
    assert text_of(found(objective="cost")).count("┃ accelerators ┃") == 2
    assert cheapest.accelerators == (4, 8, 16)


def test_the_page_shows_the_cost_of_the_best_too(cheapest):
    page = render_search_page(cheapest)
    assert page.count(">accelerator-hours</th>") == 2
    assert page.count(">accelerators</th>") >= 2
    assert "shares of the accelerator-hours of the best: time x accelerators" in page
    assert "Each line is one number of accelerators." in page


def test_a_layout_that_is_faster_on_more_accelerators_loses_by_what_these_cost():
    one, two = (plan(MODEL, CLUSTER, Layout(dp=dp, zero_stage=1), WORKLOAD) for dp in (4, 16))
    assert two.step_time_s < one.step_time_s
    slower, why = compare(two, one, "cost")
    assert sum(slower.values()) == pytest.approx(two.step_time_s - one.step_time_s)
    assert why.startswith("+")
    more = 16 * two.time.communication_s - 4 * one.time.communication_s
    assert f"{more / (4 * one.step_time_s):+.0%} communication" in why


def test_memory_is_explained_by_its_terms():
    small, large = (
        plan(MODEL, CLUSTER, Layout(dp=16, zero_stage=1), WORKLOAD.model_copy(update={"micro_batch": m}))
        for m in (1, 4)
    )
    _, why = compare(large, small, "memory")
    more = large.memory.activations_bytes - small.memory.activations_bytes
    assert f"{more / small.memory.total_bytes:+.0%} activations" in why
    assert "launch" not in why


def test_only_what_is_as_good_as_the_best_is_called_so(cheapest):
    for result in (cheapest, found(top=40), found(objective="memory", top=40)):
        values = [
            {
                "step_time": row.candidate.step_time_s,
                "memory": row.candidate.peak_memory_bytes,
                "cost": row.candidate.accelerator_hours_per_step,
            }[result.objective]
            for row in result.best
        ]
        for value, row in zip(values[1:], result.best[1:], strict=True):
            alike = row.why.startswith(("as fast", "as small", "as cheap"))
            assert value / values[0] - 1 < 0.0005 if alike else "%" in row.why


def test_what_is_left_out_of_the_front_is_only_counted(cheapest):
    assert len(cheapest.pareto) > PARETO_ROWS
    text = text_of(cheapest)
    assert f"{len(cheapest.pareto) - PARETO_ROWS} more: --json has them" in text
    assert "slower ones" not in text
