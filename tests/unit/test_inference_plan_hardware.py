"""The search for hardware against brute force, and the command."""

import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from gnomon.errors import CatalogError, LayoutError, PlanError, SpecError
from gnomon.plan.inference import InferenceWorkload, ServingTarget, find_hardware, plan_inference
from gnomon.plan.inference.evaluate import serve
from gnomon.spec import Layout
from gnomon.spec.catalog import load_cluster, load_model

ASKED = InferenceWorkload(prompt_len=1024, output_len=128)
FEW = ("dgx-h100", "dgx-a100", "dgx-h200", "gb200-nvl72", "mi300x-8x400g", "g6e.48xlarge")


def brute_force(model, cluster, target):
    """Return the smallest number of accelerators, from one estimate per layout and every batch that fits."""
    best = math.inf
    for tp, pp in itertools.product((1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8)):
        for split in ({"expert_tp": tp}, {"ep": tp}) if model.moe else ({},):
            grown = load_cluster(cluster, math.ceil(tp * pp / load_cluster(cluster).accelerators_per_node))
            try:
                found = plan_inference(model, grown, Layout(tp=tp, pp=pp, **split), ASKED)
            except LayoutError:
                continue
            if not found.max_batch:
                continue
            points = serve(model, grown, found.layout, ASKED, np.arange(1.0, found.max_batch + 1))
            fast = np.ones(points.batch.shape, dtype=bool)
            fast &= points.ttft_s <= (target.ttft_s or math.inf)
            fast &= points.tpot_s <= (target.tpot_s or math.inf)
            for rate in points.throughput[fast]:
                replicas = math.ceil((target.tokens_per_s or 0) / rate) or 1
                best = min(best, replicas * tp * pp)
    return best


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("llama-3-8b", {"tpot_s": 0.006}),
        ("llama-3-8b", {"ttft_s": 0.02, "tpot_s": 0.02}),
        ("llama-2-70b", {"tpot_s": 0.02, "tokens_per_s": 4000}),
        ("mixtral-8x7b", {"tpot_s": 0.012}),
    ],
)
@pytest.mark.parametrize("cluster", ["dgx-h100", "dgx-a100"])
def test_the_least_hardware_is_the_brute_force_one(model, wanted, cluster):
    target = ServingTarget(**wanted)
    search = find_hardware(load_model(model), ASKED, target, [cluster])
    least = brute_force(load_model(model), cluster, target)
    assert [c.num_accelerators for c in search.choices] == ([least] if math.isfinite(least) else [])


def test_choices_meet_the_target_and_are_sorted():
    model = load_model("llama-2-70b")
    target = ServingTarget(ttft_s=0.5, tpot_s=0.03, tokens_per_s=3000)
    search = find_hardware(model, ASKED, target, FEW)
    assert len(search.choices) >= 4
    counts = [c.num_accelerators for c in search.choices]
    assert counts == sorted(counts)
    for choice in search.choices:
        assert choice.ttft_s <= 0.5
        assert choice.tpot_s <= 0.03
        assert choice.tokens_per_s >= 3000
        one = choice.layout.model_copy(update={"dp": 1})
        cluster = load_cluster(choice.cluster, math.ceil(one.num_ranks / 4))
        alone = plan_inference(model, cluster, one, ASKED.model_copy(update={"batch": choice.batch}))
        assert alone.fits
        assert alone.tpot_s == pytest.approx(choice.tpot_s)
        assert alone.tokens_per_s * choice.layout.dp == pytest.approx(choice.tokens_per_s)
    assert {c.cluster for c in search.choices} | set(search.rejected) == set(FEW)


def test_prices_decide_when_all_are_known():
    model = load_model("llama-2-70b")
    target = ServingTarget(tpot_s=0.03)
    cheap_a100 = find_hardware(model, ASKED, target, ["dgx-h100", "dgx-a100"], {"h100-sxm": 9.0, "dgx-a100": 0.1})
    assert [c.cluster for c in cheap_a100.choices] == ["dgx-a100", "dgx-h100"]
    first = cheap_a100.choices[0]
    assert first.price_per_hour == pytest.approx(0.1 * first.num_accelerators)
    assert first.price_per_million_tokens == pytest.approx(first.price_per_hour / 3600 / first.tokens_per_s * 1e6)
    unpriced = find_hardware(model, ASKED, target, ["dgx-h100", "dgx-a100"])
    assert all(c.price_per_hour is None for c in unpriced.choices)


def test_clusters_are_known_by_any_case_and_named_once():
    target = ServingTarget(tpot_s=0.03)
    found = find_hardware(load_model("llama-2-70b"), ASKED, target, ["DGX-H100", "dgx-h100"], {"DGX-H100": 3.0})
    assert [c.cluster for c in found.choices] == ["dgx-h100"]
    assert found.choices[0].price_per_hour == 3.0 * found.choices[0].num_accelerators
    with pytest.raises(PlanError, match="from zero to"):
        find_hardware(load_model("llama-2-70b"), ASKED, target, ["dgx-h100"], {"*": 1e308})


def test_a_choice_planned_again_is_what_it_promises():
    target = ServingTarget(tokens_per_s=100_000)
    choice = find_hardware(load_model("mixtral-8x7b"), ASKED, target, ["g6e.48xlarge"]).choices[0]
    assert choice.layout.dp > 1
    cluster = load_cluster(choice.cluster, math.ceil(choice.num_accelerators / 8))
    again = plan_inference(
        load_model("mixtral-8x7b"), cluster, choice.layout, ASKED.model_copy(update={"batch": choice.batch})
    )
    assert again.tokens_per_s == pytest.approx(choice.tokens_per_s, rel=1e-12)
    assert (again.tpot_s, again.ttft_s) == (choice.tpot_s, choice.ttft_s)


def test_what_is_not_among_the_choices_says_why():
    search = find_hardware(
        load_model("llama-3.1-405b"), ASKED, ServingTarget(tpot_s=1e-4), ["dgx-h100", "trn2.48xlarge"]
    )
    assert search.choices == ()
    assert "no layout with these degrees meets the target" in search.rejected["dgx-h100"]
    assert "unknown" in search.rejected["trn2.48xlarge"]


def test_wrong_searches_are_refused():
    model = load_model("llama-3-8b")
    with pytest.raises(SpecError, match="a target needs at least one of"):
        ServingTarget.from_mapping({})
    with pytest.raises(CatalogError, match="Did you mean 'dgx-h100'"):
        find_hardware(model, ASKED, ServingTarget(tpot_s=1.0), ["dgx-h10"])
    with pytest.raises(PlanError, match="which is not searched"):
        find_hardware(model, ASKED, ServingTarget(tpot_s=1.0), ["dgx-h100"], {"h200": 2.0})
    with pytest.raises(PlanError, match="from zero to"):
        find_hardware(model, ASKED, ServingTarget(tpot_s=1.0), ["dgx-h100"], {"*": -2.0})


COMMAND = [sys.executable, "-c", "from gnomon.cli.main import main; main()", "plan", "inference"]
CONFIG = "examples/inference/llama-3.3-70b-h100.yaml"


def run(*arguments):
    return subprocess.run([*COMMAND, CONFIG, *arguments], capture_output=True, text=True, check=False)


def test_the_command_prints_an_estimate_and_a_search():
    found = json.loads(run("--json", "workload.batch=16").stdout)
    assert found["workload"]["batch"] == 16
    assert found["kv_bytes_per_token"] == 320 * 1024
    assert "time per output token" in run().stdout
    search = json.loads(run("--tpot-s", "0.02", "--cluster", "dgx-h100", "--price", "2.5", "--json").stdout)
    (choice,) = search["choices"]
    assert choice["price_per_hour"] == 2.5 * choice["num_accelerators"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--price", "2"), "--price belongs to a search"),
        (("--tpot-s", "0"), "--tpot-s is 0"),
        (("--tpot-s", "0.1", "--price", "h100=cheap"), "is not a number"),
        (("workload.prompt=4",), "prompt"),
        (("+layout.cp=2",), "layout.cp=2 belongs to training"),
        (("+training=1",), "unknown key 'training'"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message):
    done = run(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
