"""Inference estimates against hand-computed, published and measured values."""

import re
from pathlib import Path

import numpy as np
import pytest

from gnomon.errors import LayoutError, PlanError, SpecError
from gnomon.plan.inference import (
    InferenceEstimate,
    InferenceWorkload,
    expected_distinct_experts,
    kv_bytes_per_token,
    kv_cache_bytes,
    plan_inference,
)
from gnomon.plan.parameters import count_parameters
from gnomon.plan.traffic import memory_key, memory_keys
from gnomon.spec import CollectiveCurve, Efficiency, GridCurve, Layout, SizeCurve
from gnomon.spec.catalog import load_cluster, load_model
from plan_fixtures import MATMUL_RATE, MEMORY_RATE, TINY, constant_cluster

DOCUMENT = Path(__file__).parents[2] / "docs" / "inference.md"
SHORT = InferenceWorkload(prompt_len=100, output_len=20)


def estimate(model, cluster, workload=None, nodes=None, **layout):
    asked = InferenceWorkload.from_mapping({"prompt_len": 2048, "output_len": 256, **(workload or {})})
    return plan_inference(load_model(model), load_cluster(cluster, nodes), Layout(**layout), asked)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("llama-2-70b", 2 * 80 * 8 * 128 * 2),  # grouped queries: 320 KiB
        ("llama-3-8b", 128 * 1024),
        ("llama-2-7b", 2 * 32 * 32 * 128 * 2),  # multi-head: 512 KiB
        ("falcon-7b", 2 * 32 * 1 * 64 * 2),  # multi-query
        ("deepseek-v3", 576 * 61 * 2),  # latent: 70,272 (arXiv 2505.09343, table 1: 70.272 KB)
    ],
)
def test_cache_bytes_per_token(model, size):
    assert kv_bytes_per_token(load_model(model)) == size
    assert kv_cache_bytes(load_model(model), 1000, 1.0) == 1000 * size / 2


def test_windowed_layers_keep_their_window():
    model = load_model("gpt-oss-20b")
    assert (model.num_layers, model.num_sliding_window_layers, model.sliding_window) == (24, 12, 128)
    per_layer = 2 * 8 * 64 * 2
    assert kv_cache_bytes(model, 8192) == per_layer * (12 * 8192 + 12 * 128)
    assert kv_cache_bytes(model, 100) == per_layer * 24 * 100


def test_expected_distinct_experts():
    assert expected_distinct_experts(8, 2, 4) == 8 * (1 - 0.75**4)  # 5.47
    assert expected_distinct_experts(256, 8, 1) == pytest.approx(8)
    assert expected_distinct_experts(8, 2, 1000) == pytest.approx(8)
    assert expected_distinct_experts(0, 0, 5) == 0
    random = np.random.default_rng(1)
    chosen = [np.concatenate([random.permutation(64)[:6] for _ in range(20)]) for _ in range(400)]
    mean = np.mean([np.unique(c).size for c in chosen])
    assert expected_distinct_experts(64, 6, 20) == pytest.approx(mean, rel=0.01)


def test_weights_as_stored():
    count = count_parameters(load_model("llama-2-70b"))
    wide = 2 * (count.embedding + count.head + count.norm)
    assert estimate("llama-2-70b", "dgx-h100", tp=8).weights_bytes == 2 * 68_976_648_192
    eight = estimate("llama-2-70b", "dgx-h100", {"weight_precision": "int8"}, tp=8)
    assert eight.weights_bytes == pytest.approx(count.attention + count.mlp + wide)
    four = estimate("llama-2-70b", "dgx-h100", {"weight_precision": "fp4"}, tp=8)
    assert four.weights_bytes == pytest.approx((count.attention + count.mlp) * 17 / 32 + wide)
    # DeepSeek-V3: 671 B parameters, nearly all of them in 8 bits
    latent = estimate("deepseek-v3", "dgx-h200", {"weight_precision": "fp8"}, nodes=2, tp=8, pp=2)
    assert latent.weights_bytes == pytest.approx(671.0e9 + 2 * 129280 * 7168, rel=2e-3)


def test_decode_on_constant_rates_by_hand():
    cluster = constant_cluster()
    fp32 = InferenceWorkload(prompt_len=100, output_len=20, compute_precision="fp32")
    found = plan_inference(TINY, cluster, Layout(), fp32)
    matrices = 2 * 12 * 64**2 + 256 * 64
    assert found.decode.weights_s == pytest.approx(4 * matrices / MEMORY_RATE)
    # 110 tokens of context on average, keys and values of 64 elements in two layers
    assert found.decode.kv_cache_s == pytest.approx(110 * 2 * 64 * 2 * 4 / MEMORY_RATE)
    assert found.decode.compute_s == 0.0
    assert found.decode.communication_s == found.decode.pipeline_s == 0.0
    # 4096 sequences: every product computes longer than it reads
    many = plan_inference(TINY, cluster, Layout(), fp32.model_copy(update={"batch": 4096}))
    assert many.decode.weights_s == 0.0
    assert many.decode.compute_s == pytest.approx(2 * 4096 * matrices / MATMUL_RATE)


def test_prefill_on_constant_rates_by_hand():
    fp32 = InferenceWorkload(prompt_len=128, output_len=1, compute_precision="fp32")
    model = TINY.model_copy(update={"max_seq_len": 256})
    found = plan_inference(model, constant_cluster(memory_rate=1e14), Layout(), fp32)
    products = 2 * 128 * 2 * 12 * 64**2 / MATMUL_RATE
    attention = 2 * 128 * 64 * 2 * 2 * 64 / 5e11  # half of the square: 64 keys on average
    head = 2 * 256 * 64 / MATMUL_RATE  # of the last token alone
    assert found.prefill.compute_s == pytest.approx(products + attention + head)
    assert found.request_s == found.ttft_s
    assert found.tokens_per_s == pytest.approx(1 / found.ttft_s)


def test_the_rates_are_the_generation_s_unless_the_machine_was_measured():
    rates = "forward operators over 2048 tokens at achieved rates"
    assert estimate("llama-3-8b", "dgx-h100").sources["ttft_s"] == f"{rates} (constants of nvidia-hopper)"
    measured = constant_cluster(source="measured 2026-01-02")
    fp32 = InferenceWorkload(prompt_len=100, output_len=20, compute_precision="fp32")
    assert "(measured 2026-01-02)" in plan_inference(TINY, measured, Layout(), fp32).sources["ttft_s"]


def test_launches_show_on_a_device_that_does_not_run_ahead():
    fp32 = InferenceWorkload(prompt_len=100, output_len=20, compute_precision="fp32")
    quiet = plan_inference(TINY, constant_cluster(), Layout(), fp32)
    slow = plan_inference(TINY, constant_cluster(dispatch_s=1e-5), Layout(), fp32)
    ahead = plan_inference(TINY, constant_cluster(dispatch_s=1e-5, asynchronous=True), Layout(), fp32)
    assert quiet.decode.launch_s == 0.0
    assert slow.tpot_s == pytest.approx(quiet.tpot_s + slow.decode.launch_s)
    assert slow.decode.launch_s > 2 * 7 * 1e-5  # at least the products and norms of two layers
    assert quiet.tpot_s < ahead.tpot_s < slow.tpot_s


def test_a_calibrated_machine_has_all_the_rates():
    """The keys are those that `gnomon calibrate` measures: nothing falls back to a default."""
    efficiency = Efficiency(
        matmul={f"{p}.{phase}": GridCurve.constant(7e10, 3) for p in ("fp32", "bf16") for phase in ("forward",)},
        attention={f"{p}.forward": GridCurve.constant(3e10, 2) for p in ("fp32", "bf16")},
        memory={memory_key(kind, p): SizeCurve.constant(9e9) for kind, p in memory_keys(("fp32", "bf16"))},
        dispatch_forward_s=4e-6,
        dispatch_backward_s=6e-6,
        asynchronous=False,
    )
    cluster = constant_cluster(efficiency=efficiency)
    for model in ("gpt2", "qwen3-0.6b"):
        for precision in ("fp32", "bf16"):
            asked = InferenceWorkload(prompt_len=64, output_len=64, batch=4, compute_precision=precision)
            found = plan_inference(load_model(model), cluster, Layout(), asked)
            assert found.decode.weights_s > 0.5 * found.tpot_s
            assert found.decode.total_s == pytest.approx(found.tpot_s)


def test_measured_all_reduce_is_used():
    curve = CollectiveCurve(ranks=2, latency_s=1e-3, bandwidth=SizeCurve.constant(1e9))
    cluster = constant_cluster(collectives={"all_reduce": curve})
    fp32 = InferenceWorkload(prompt_len=100, output_len=20, compute_precision="fp32")
    found = plan_inference(TINY, cluster, Layout(tp=2), fp32)
    assert found.decode.communication_s == pytest.approx(2 * 2 * (1e-3 + 64 * 4 / 1e9))


def _achieved_bandwidth(found):
    return 3.35e12 * found.cluster.rates.memory


def test_decode_reads_every_weight_once():
    """A bf16 70B on eight H100: 140 GB over 8 x 3.35 TB/s is 5.2 ms at least."""
    found = estimate("llama-2-70b", "dgx-h100", tp=8)
    assert found.tpot_s > 2 * 68.98e9 / (8 * 3.35e12) > 5.1e-3
    count = count_parameters(found.model)
    read = 2 * (count.total - count.embedding - count.norm) / 8
    assert found.decode.weights_s == pytest.approx(read / _achieved_bandwidth(found), rel=1e-6)
    assert 0.4 < found.decode_mbu < 0.85


# README of https://github.com/pytorch-labs/gpt-fast: eight A100-80GB limited to 330 W, batch 1, prompt of 5 tokens
GPT_FAST = [
    ("llama-2-7b", 1, 104.9),
    ("llama-2-7b", 2, 168.84),
    ("llama-2-7b", 4, 254.02),
    ("llama-2-7b", 8, 328.43),
    ("llama-2-70b", 2, 21.32),
    ("llama-2-70b", 4, 38.01),
    ("llama-2-70b", 8, 62.50),
]


def test_published_decode_rates():
    """No constant was fitted to these; a captured graph is a little faster than torch.compile."""
    asked = {"prompt_len": 5, "output_len": 200}
    ratios = [tps * estimate(model, "dgx-a100", asked, tp=tp).tpot_s for model, tp, tps in GPT_FAST]
    assert all(0.74 < ratio < 1.1 for ratio in ratios), ratios
    assert np.mean(np.abs(np.asarray(ratios) - 1)) < 0.13
    documented = re.findall(r"\| \d \| [\d.]+ \| ([\d.]+) \|", DOCUMENT.read_text(encoding="utf-8"))
    assert documented == [f"{1 / ratio:.2f}" for ratio in ratios]


def test_experts_of_a_small_batch_are_read_alone():
    one = estimate("mixtral-8x7b", "dgx-h100", tp=2)
    four = estimate("mixtral-8x7b", "dgx-h100", {"batch": 4}, tp=2)
    assert (one.distinct_experts, four.distinct_experts) == (2, 5.46875)
    moe = one.model.moe
    expert = 3 * 4096 * moe.expert_ffn_size * 32 * 2 / 2
    difference = (four.distinct_experts - one.distinct_experts) * expert / _achieved_bandwidth(one)
    assert four.decode.weights_s - one.decode.weights_s == pytest.approx(difference, rel=1e-6)


def test_splitting_experts_or_spreading_them_holds_the_same():
    split = estimate("mixtral-8x7b", "dgx-h100", tp=8)
    spread = estimate("mixtral-8x7b", "dgx-h100", tp=8, ep=8)
    assert split.layout.expert_tp == 8
    assert split.memory.weights_bytes == pytest.approx(spread.memory.weights_bytes)
    wide = estimate("deepseek-v3", "dgx-h200", {"compute_precision": "fp8"}, nodes=4, dp=32, ep=32)
    assert wide.decode.communication_s > 0.0
    assert wide.memory.weights_bytes < wide.weights_bytes / 10


def test_tensor_parallelism_divides_heads_but_not_latents():
    one, eight = (estimate("llama-3-8b", "dgx-h100", tp=tp).memory.kv_cache_bytes for tp in (1, 8))
    assert eight == one / 8
    many = estimate("llama-3-8b", "gb200-nvl72", nodes=4, tp=16).memory.kv_cache_bytes
    assert many == eight  # eight key heads: two ranks hold copies
    four, latents = (
        estimate("deepseek-v3", "gb200-nvl72", {"weight_precision": "fp8"}, nodes=4, tp=tp).memory.kv_cache_bytes
        for tp in (4, 16)
    )
    assert latents == four


def test_pipeline_stages_share_memory_but_not_latency():
    one = estimate("llama-3-8b", "dgx-h100")
    two = estimate("llama-3-8b", "dgx-h100", pp=2)
    assert two.memory.kv_cache_bytes == one.memory.kv_cache_bytes / 2
    assert one.tpot_s < two.tpot_s < 1.01 * one.tpot_s
    # two parts of the batch follow each other: the same time per token as half the batch, and a little more
    full = estimate("llama-3-8b", "dgx-h100", {"batch": 64}, pp=2)
    half = estimate("llama-3-8b", "dgx-h100", {"batch": 32})
    assert half.tpot_s < full.tpot_s < 1.15 * half.tpot_s


def test_replicas_change_nothing_but_the_throughput():
    asked = {"prompt_len": 700, "output_len": 64, "batch": 60, "prefill_batch": 2}
    one, four = (estimate("starcoder2-7b", "dgx-h100", asked, 4, dp=dp, tp=4, pp=2) for dp in (1, 4))
    assert (four.ttft_s, four.tpot_s, four.memory) == (one.ttft_s, one.tpot_s, one.memory)
    assert four.tokens_per_s == pytest.approx(4 * one.tokens_per_s, rel=1e-12)
    # they need no network between them either
    assert estimate("llama-3-8b", "g6e.48xlarge", nodes=2000, dp=2000, tp=8).tpot_s > 0


def test_no_more_prompts_are_prefilled_than_there_are():
    many, all_ = ({"batch": 64, "prefill_batch": size} for size in (1024, 64))
    more, same = estimate("llama-3-8b", "dgx-h100", many), estimate("llama-3-8b", "dgx-h100", all_)
    assert (more.ttft_s, more.memory) == (same.ttft_s, same.memory)
    assert more.assumptions[1] == "prefill_batch=1024 is more than the batch: 64 are prefilled"
    few = next(point for point in more.curve if point.batch == 2)
    alone = estimate("llama-3-8b", "dgx-h100", {"batch": 2, "prefill_batch": 2})
    assert few.memory_bytes == pytest.approx(alone.memory.total_bytes, rel=1e-12)


@pytest.mark.parametrize("prompts", [1, 8, 100_000])
def test_largest_batch_counts_the_prompts_that_it_prefills(prompts):
    asked = {"prefill_batch": prompts}
    limit = estimate("llama-3-8b", "dgx-h100", asked).max_batch
    assert estimate("llama-3-8b", "dgx-h100", {**asked, "batch": limit}).fits
    assert not estimate("llama-3-8b", "dgx-h100", {**asked, "batch": limit + 1}).fits


def test_largest_batch_fits_and_one_more_does_not():
    limit = estimate("llama-3-8b", "dgx-h100").max_batch
    last = estimate("llama-3-8b", "dgx-h100", {"batch": limit})
    assert last.fits
    assert last.memory.total_bytes <= 0.9 * 80 * 2**30
    over = estimate("llama-3-8b", "dgx-h100", {"batch": limit + 1})
    assert not over.fits
    assert over.memory.total_bytes > 0.9 * 80 * 2**30
    assert [p.batch for p in last.curve] == [1, 2, 4, 8, 16, 32, 64, 128, limit]
    assert estimate("llama-2-70b", "dgx-h100").max_batch == 0
    assert estimate("llama-2-70b", "dgx-h100").curve == ()


def test_curve_says_what_each_batch_alone_says():
    found = estimate("llama-3-8b", "dgx-h100")
    for point in found.curve:
        alone = estimate("llama-3-8b", "dgx-h100", {"batch": point.batch})
        assert point.tpot_s == pytest.approx(alone.tpot_s, rel=1e-12)
        assert point.tokens_per_s == pytest.approx(alone.tokens_per_s, rel=1e-12)
        assert point.memory_bytes == pytest.approx(alone.memory.total_bytes, rel=1e-12)
        busy_s = point.batch * alone.ttft_s + 255 * alone.tpot_s
        assert alone.tokens_per_s == pytest.approx(point.batch * 256 / busy_s)


def test_estimates_survive_json():
    found = estimate("mixtral-8x7b", "dgx-h100", tp=2)
    assert InferenceEstimate.from_mapping(found.to_mapping()) == found


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"prompt_len": 0}, "'prompt_len' is 0"),
        ({"batchsize": 4}, "Did you mean 'batch'"),
        ({"compute_precision": "fp8", "weight_precision": "bf16"}, "is wider than compute_precision=fp8"),
        ({"kv_precision": "fp4"}, "'kv_precision' is 'fp4'"),
        ({"memory_fraction": 1.5}, "memory_fraction"),
    ],
)
def test_wrong_workloads_are_refused(workload, message):
    with pytest.raises(SpecError, match=message):
        InferenceWorkload.from_mapping({"prompt_len": 10, "output_len": 10, **workload})


@pytest.mark.parametrize(
    ("model", "cluster", "layout", "message"),
    [
        ("llama-3-8b", "dgx-h100", {"zero_stage": 3}, "layout.zero_stage=3 belongs to training"),
        ("llama-3-8b", "dgx-h100", {"cp": 2}, "layout.cp=2 belongs to training"),
        ("llama-3-8b", "dgx-h100", {"tp": 2, "sequence_parallel": True}, "not priced for inference"),
        ("llama-3-8b", "dgx-h100", {"tp": 3}, "tp=3 does not divide num_heads=32"),
        ("llama-3-8b", "dgx-h100", {"tp": 8, "pp": 2}, "needs 16 ranks"),
        ("llama-3-8b", "dgx-h100", {"tp": 2, "ep": 2}, "has none"),
    ],
)
def test_wrong_layouts_are_refused(model, cluster, layout, message):
    with pytest.raises(LayoutError, match=message):
        plan_inference(load_model(model), load_cluster(cluster), Layout(**layout), SHORT)


def test_unknown_hardware_stays_unknown():
    with pytest.raises(PlanError, match=r"achieved rates of 'trn2\.48xlarge' are unknown"):
        estimate("llama-3-8b", "trn2.48xlarge")
    with pytest.raises(PlanError, match="fp8 peak of 'a100-80gb'"):
        estimate("llama-3-8b", "dgx-a100", {"compute_precision": "fp8"})
    with pytest.raises(PlanError, match="exceed the 1024 learned positions"):
        estimate("gpt2", "dgx-a100")
    nameless = constant_cluster()
    unsized = nameless.model_copy(
        update={"accelerator": nameless.accelerator.model_copy(update={"memory_bytes": None})}
    )
    found = plan_inference(TINY, unsized, Layout(), SHORT.model_copy(update={"compute_precision": "fp32"}))
    assert (found.fits, found.max_batch) == (None, None)
