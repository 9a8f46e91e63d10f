"""Diffusion transformers (DiT): patches in place of tokens, and a condition in every layer."""

from __future__ import annotations

import pytest

from gnomon.errors import PlanError, SpecError
from gnomon.plan.conversions import model_flops_per_token
from gnomon.plan.own_loop import check_own_model
from gnomon.plan.planner import plan
from gnomon.spec import Layout, ModelSpec, Workload
from gnomon.spec.catalog import load_cluster, load_model

NODE = load_cluster("dgx-a100", num_nodes=1)
DIT = load_model("dit-xl-2")
ASKED = {"seq_len": 256, "global_batch": 32, "precision": "bf16", "stack": "fsdp", "attention_mask": "full"}


@pytest.mark.parametrize(
    ("name", "gflops"), [("dit-s-2", 6.06), ("dit-b-2", 23.01), ("dit-l-2", 80.71), ("dit-xl-2", 118.64)]
)
def test_forward_multiply_adds_are_those_of_the_paper(name, gflops):
    """Table 4 of arXiv 2212.09748, whose Gflops are multiply-adds of one image."""
    estimate = plan(load_model(name), NODE, Layout(), Workload(**ASKED))
    assert estimate.model_flops / 32 / 3 / 2 / 1e9 == pytest.approx(gflops, rel=2e-3)


def test_the_condition_is_projected_once_per_image_and_not_per_patch():
    estimate = plan(DIT, NODE, Layout(), Workload(**ASKED))
    product = next(o for o in estimate.operators if o.name == "modulation" and o.flops)
    assert product.flops == pytest.approx(28 * 2 * 32 * 6 * 1152**2)


def test_a_compiler_joins_the_modulation_with_its_neighbours():
    eager = plan(DIT, NODE, Layout(), Workload(**ASKED))
    compiled = plan(DIT, NODE, Layout(), Workload(**{**ASKED, "stack": "fsdp-compiled"}))
    assert compiled.activation_tensors["modulation"] == pytest.approx(eager.activation_tensors["modulation"] / 2)
    assert compiled.step_time_s < eager.step_time_s


def test_what_it_lacks_is_said():
    with pytest.raises(PlanError, match="attention_mask=full"):
        plan(DIT, NODE, Layout(), Workload(**{**ASKED, "attention_mask": "causal"}))
    with pytest.raises(PlanError, match="gnomon plan counts them"):
        model_flops_per_token(DIT, 256)
    with pytest.raises(PlanError, match="image patches"):
        check_own_model(DIT)
    with pytest.raises(SpecError, match="cannot have vocab_size"):
        ModelSpec.from_mapping({**DIT.to_mapping(), "vocab_size": 10})
    with pytest.raises(SpecError, match="missing key 'vocab_size'"):
        ModelSpec.from_mapping({"num_layers": 1, "hidden_size": 64, "num_heads": 1})
