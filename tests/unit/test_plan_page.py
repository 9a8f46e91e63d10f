"""The page of a plan: what it shows, and that it needs nothing from outside."""

import re

import pytest

from gnomon.plan.planner import plan
from gnomon.plan.search import search
from gnomon.plan.search.sensitivity import sensitivity
from gnomon.report.plan_page import plan_sections, render_plan_page
from gnomon.report.scaling import best_by_number
from gnomon.report.search_page import render_search_page
from gnomon.spec import Layout, Workload
from gnomon.spec.catalog import load_cluster, load_model

WORKLOAD = Workload(seq_len=4096, global_batch=64, micro_batch=1, precision="bf16", stack="megatron-core")


@pytest.fixture(scope="module")
def estimate():
    layout = Layout(dp=2, tp=8, pp=4, vpp=2, zero_stage=1)
    return plan(load_model("llama-3.1-70b"), load_cluster("dgx-h100", 8), layout, WORKLOAD)


def test_every_picture_is_there(estimate):
    found = search(estimate.model, estimate.cluster, WORKLOAD, top=1)
    sections = plan_sections(estimate, found)
    assert [s.key for s in sections] == ["time", "memory", "pipeline", "operators", "scaling", "search", "sources"]
    assert {p.key for s in sections for p in s.panels} == {
        "time",
        "memory",
        "pipeline",
        "roofline",
        "scaling",
        "pareto",
    }


def test_the_waterfall_ends_at_the_step(estimate):
    panel = plan_sections(estimate)[0].panels[0]
    bars = [trace for trace in panel.figure["data"] if trace["type"] == "bar"]
    assert sum(trace["x"][0] for trace in bars[:-1]) == pytest.approx(estimate.step_time_s)
    assert bars[-1]["x"][0] == pytest.approx(estimate.step_time_s)


def test_stages_stack_up_to_their_peaks(estimate):
    panel = plan_sections(estimate)[1].panels[0]
    bars = [trace for trace in panel.figure["data"] if trace["type"] == "bar"]
    tops = [sum(trace["x"][i] for trace in bars) * 2**30 for i in range(len(estimate.stages))]
    assert tops == pytest.approx([stage.memory.total_bytes for stage in estimate.stages])


def test_the_page_asks_for_nothing_from_outside(estimate):
    page = render_plan_page(estimate)
    assert len(page) < 6_000_000
    assert "default-src 'none'" in page
    assert "form-action 'none'" in page
    assert page.count("Plotly.setPlotConfig(") == 1
    assert '"showSendToCloud": false, "plotlyServerURL": ""' in page
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.findall(r"(?:src|href)=[\"']https?:", outside)
    assert "llama-3.1-70b on 64 x h100-sxm" in page


def test_one_stage_and_one_rank_leave_out_pipeline_and_scaling():
    workload = Workload(seq_len=1024, global_batch=4, micro_batch=4, precision="bf16")
    alone = plan(load_model("gpt2"), load_cluster("dgx-a100"), Layout(), workload)
    assert [s.key for s in plan_sections(alone)] == ["time", "memory", "operators", "sources"]


def test_a_layout_that_does_not_fit_shows_what_would():
    from gnomon.plan.alternatives import nearest_fitting

    asked = plan(load_model("llama-3.1-70b"), load_cluster("dgx-h100", 8), Layout(dp=8, tp=8), WORKLOAD)
    asked = asked.model_copy(update={"alternatives": nearest_fitting(asked, plan)})
    (section,) = [s for s in plan_sections(asked) if s.key == "fitting"]
    assert len(section.tables[0].rows) == len(asked.alternatives)


@pytest.mark.parametrize(
    ("schedule", "batch"),
    [("dualpipe", 1024), ("zb-v", 1024), ("v-half", 1024), ("v-min", 64), ("zb-h1", 64), ("gpipe", 64), ("zb-h2", 64)],
)
def test_every_schedule_has_its_timeline(schedule, batch):
    layout = Layout(dp=1, tp=8, pp=8, schedule=schedule, zero_stage=0)
    workload = WORKLOAD.model_copy(update={"global_batch": batch})
    found = plan(load_model("llama-3.1-70b"), load_cluster("dgx-h100", 8), layout, workload)
    (section,) = [s for s in plan_sections(found) if s.key == "pipeline"]
    ranks = {label for trace in section.panels[0].figure["data"] for label in trace["y"]}
    assert ranks == {f"rank {r}" for r in range(8)}


PIPELINES = [
    ("gpipe", 1, "none"),
    ("1f1b", 1, "none"),
    ("1f1b", 1, "full"),
    ("1f1b", 2, "selective"),
    ("zb-h1", 1, "full"),
    ("zb-h2", 1, "none"),
    ("zb-v", 1, "full"),
    ("v-half", 1, "per_op"),
    ("v-min", 1, "full"),
    ("dualpipe", 1, "none"),
    ("dualpipe", 1, "products"),
]


@pytest.mark.parametrize("stack", ["megatron-core", "fsdp"])  # ranks do not wait at the update, and they do
@pytest.mark.parametrize("pp", [2, 4, 8])
@pytest.mark.parametrize(("schedule", "vpp", "recompute"), PIPELINES)
def test_the_picture_of_the_pipeline_says_what_the_estimate_says(schedule, vpp, recompute, pp, stack):
    layout = Layout(dp=1, tp=8, pp=pp, vpp=vpp, schedule=schedule, recompute=recompute)
    workload = WORKLOAD.model_copy(update={"global_batch": 16, "stack": stack})
    found = plan(load_model("llama-3.1-70b"), load_cluster("dgx-h100", 8), layout, workload)
    (section,) = [s for s in plan_sections(found) if s.key == "pipeline"]
    traces = section.panels[0].figure["data"]
    spans = [span for t in traces for span in zip(t["y"], t["base"], t["x"], strict=True)]
    ranks = {label for label, _, _ in spans}
    starts = {rank: min(start for label, start, _ in spans if label == rank) for rank in ranks}
    ends = {rank: max(start + took for label, start, took in spans if label == rank) for rank in ranks}
    pipeline = found.pipeline
    assert pipeline.ranks_wait == (stack == "fsdp" or schedule in ("gpipe", "1f1b", "dualpipe"))
    end = max(ends.values()) if pipeline.ranks_wait else max(ends[r] - starts[r] for r in ranks)
    assert end == pytest.approx(pipeline.total_s, rel=0.01)
    busy = max(sum(took for label, _, took in spans if label == rank) for rank in ranks)
    idle = (pipeline.bubble_s + pipeline.send_s) / pipeline.total_s
    assert 1.0 - busy / end == pytest.approx(idle, abs=0.01)
    assert f"idle for {100 * pipeline.bubble_fraction:.1f}% of that" in section.reading


def test_a_picture_of_fewer_micro_batches_says_so():
    layout, workload = Layout(dp=1, tp=8, pp=4), WORKLOAD
    found = plan(load_model("llama-3.1-70b"), load_cluster("dgx-h100", 4), layout, workload)
    (section,) = [s for s in plan_sections(found) if s.key == "pipeline"]
    assert "24 of 64 micro-batches are shown" in section.panels[0].caption


def test_an_estimate_without_the_times_of_its_passes_has_no_picture(estimate):
    old = estimate.model_copy(update={"pipeline": estimate.pipeline.model_copy(update={"passes": {}})})
    assert "pipeline" not in [s.key for s in plan_sections(old)]


def test_strong_scaling_begins_where_the_model_fits(estimate):
    best = best_by_number(estimate)
    counts = [candidate.num_accelerators for candidate in best]
    assert counts == sorted(counts)
    assert counts[-1] == 64
    assert all(candidate.peak_memory_bytes <= estimate.cluster.accelerator.memory_bytes for candidate in best)
    (section,) = [s for s in plan_sections(estimate, by_number=best) if s.key == "scaling"]
    names = [trace["name"] for trace in section.panels[0].figure["data"]]
    assert names == ["perfect scaling", "strong scaling, best layouts", "weak scaling, more replicas"]


def test_the_front_shows_no_layout_that_is_faster_than_what_fits(estimate):
    found = search(estimate.model, estimate.cluster, WORKLOAD, top=1)
    (section,) = [s for s in plan_sections(estimate, found) if s.key == "search"]
    line = section.panels[0].figure["data"][0]
    assert list(line["y"]) == sorted(line["y"])
    assert line["line"]["shape"] == "vh"  # from a fast layout up to the slower one, then left to its memory


def test_the_page_of_a_search_shows_the_front_and_why_the_others_lost(estimate):
    found = search(estimate.model, estimate.cluster, WORKLOAD, top=3)
    page = render_search_page(found, sensitivity(estimate.model, estimate.cluster, WORKLOAD))
    for title in ("The layouts that nothing beats", "why the others lost", "What better hardware would bring"):
        assert title in page
    assert found.best[1].why.split(",")[0] in page
