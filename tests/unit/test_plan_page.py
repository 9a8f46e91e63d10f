"""The page of a plan: what it shows, and that it needs nothing from outside."""

import re

import pytest

from gnomon.plan.planner import plan
from gnomon.plan.search import search
from gnomon.report.plan_page import plan_sections, render_plan_page
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
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.findall(r"(?:src|href)=[\"']https?:", outside)
    assert "llama-3.1-70b on 64 x h100-sxm" in page


def test_one_stage_and_one_rank_leave_out_pipeline_and_scaling():
    workload = Workload(seq_len=1024, global_batch=4, micro_batch=4, precision="bf16")
    alone = plan(load_model("gpt2"), load_cluster("dgx-a100"), Layout(), workload)
    assert [s.key for s in plan_sections(alone)] == ["time", "memory", "operators", "sources"]
