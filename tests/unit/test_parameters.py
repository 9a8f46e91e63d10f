"""Exact parameter counts against those that the published checkpoints hold."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.plan.flops import model_flops_per_token
from gnomon.plan.parameters import count_parameters
from gnomon.plan.sizes import ModelSizes
from gnomon.spec import ModelSpec, MoESpec
from gnomon.spec.catalog import load_model

PUBLISHED = {
    "deepseek-v2": 235_741_434_880,
    "deepseek-v2-lite": 15_706_484_224,
    "gemma-2-27b": 27_227_128_320,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2b": 2_506_172_416,
    "gemma-3-1b": 999_885_952,
    "gemma-7b": 8_537_680_896,
    "gpt-neox-20b": 20_554_567_680,
    "gpt-oss-120b": 116_829_156_672,
    "gpt-oss-20b": 20_914_757_184,
    "gpt2": 124_439_808,
    "gpt2-large": 774_030_080,
    "gpt2-medium": 354_823_168,
    "gpt2-xl": 1_557_611_200,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-2-7b": 6_738_415_616,
    "llama-3-70b": 70_553_706_496,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x22b": 140_620_634_112,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-72b": 72_706_203_648,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-32b": 32_762_123_264,
    "qwen3-8b": 8_190_735_360,
}


def matmul_parameters(spec):
    """Return the matrix elements that a token meets: a sixth of its FLOPs in a sequence of no length."""
    return float(model_flops_per_token(ModelSizes.of(spec), np.full(1, 1e-12), np.zeros(1))[0]) / 6.0


@pytest.mark.parametrize(("name", "total"), PUBLISHED.items())
def test_total_equals_the_published_checkpoint(name, total):
    assert count_parameters(load_model(name)).total == total


def test_deepseek_v3_counts_its_routing_bias_as_a_buffer():
    count = count_parameters(load_model("deepseek-v3"))
    assert count.buffers == 58 * 256
    assert count.total + count.buffers == 671_026_419_200


def test_deepseek_v3_mtp_module_is_stated_separately():
    # the checkpoint holds 13.5 B more than the main model: the module and copies of the shared embedding and head
    count = count_parameters(load_model("deepseek-v3"))
    checkpoint_extra = count.mtp + 2 * count.embedding
    assert count.mtp == 11_610_067_968
    assert checkpoint_extra == pytest.approx(13.46e9, rel=0.005)


def test_gpt3_is_175_billion():
    assert count_parameters(load_model("gpt3-175b")).total == 174_604_259_328


def test_gemma_3_27b_language_model():
    assert count_parameters(load_model("gemma-3-27b")).total == 27_009_346_304


@pytest.mark.parametrize(
    ("name", "billions"),
    [("deepseek-v2", 21.4), ("deepseek-v3", 37.6), ("mixtral-8x7b", 12.9), ("qwen3-235b-a22b", 22.2)],
)
def test_active_parameters_equal_the_model_cards(name, billions):
    assert count_parameters(load_model(name)).active / 1e9 == pytest.approx(billions, abs=0.06)


def test_gpt_oss_active_parameters_without_the_embedding_equal_the_model_card():
    # table 1 of arXiv 2508.10925: 5.13 B and 3.61 B active
    assert matmul_parameters(load_model("gpt-oss-120b")) / 1e9 == pytest.approx(5.13, abs=0.005)
    assert matmul_parameters(load_model("gpt-oss-20b")) / 1e9 == pytest.approx(3.61, abs=0.005)


def test_parts_of_a_llama_by_hand():
    spec = ModelSpec(
        num_layers=2, hidden_size=8, num_heads=4, num_kv_heads=2, ffn_hidden_size=12, vocab_size=10,
        gated_mlp=True, norm="rmsnorm", position="rope", tied_embeddings=False,
    )  # fmt: skip
    count = count_parameters(spec)
    assert count.embedding == 10 * 8
    assert count.positions == 0
    assert count.attention == 2 * (8 * 8 + 2 * 8 * 4 + 8 * 8)
    assert count.mlp == 2 * 3 * 8 * 12
    assert count.norm == 2 * 2 * 8 + 8
    assert count.head == 10 * 8
    assert count.active == count.total == sum([80, 384, 576, 40, 80])
    assert matmul_parameters(spec) == pytest.approx(384 + 576 + 80)


def test_shared_experts_gate_router_bias_and_dense_layers_by_hand():
    moe = MoESpec(
        num_experts=4, experts_per_token=2, expert_ffn_size=6, num_shared_experts=2, shared_expert_gate=True,
        num_dense_layers=1, router_bias=True, expert_bias=True,
    )  # fmt: skip
    spec = ModelSpec(num_layers=3, hidden_size=8, num_heads=2, vocab_size=10, gated_mlp=True, moe=moe)
    count = count_parameters(spec)
    expert = 3 * 8 * 6 + 6 + 6 + 8
    assert count.experts == 2 * 4 * expert
    assert count.active_experts == 2 * 2 * expert
    assert count.router == 2 * (8 * 4 + 4)
    assert count.mlp == 3 * 8 * 32 + 2 * (3 * 8 * 12 + 12 + 12 + 8 + 8)
    assert count.total - count.active == 2 * 2 * expert


def test_tied_head_takes_part_in_matrix_products_but_is_counted_once():
    fields = {"num_layers": 1, "hidden_size": 8, "num_heads": 2, "vocab_size": 10}
    tied, untied = ModelSpec(**fields, tied_embeddings=True), ModelSpec(**fields, tied_embeddings=False)
    assert count_parameters(untied).total - count_parameters(tied).total == 80
    assert matmul_parameters(untied) == pytest.approx(matmul_parameters(tied))
