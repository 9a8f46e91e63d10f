"""What every inference estimate must satisfy."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.plan.inference import InferenceWorkload, expected_distinct_experts, plan_inference
from gnomon.plan.inference.workload import OPERAND_BYTES
from gnomon.spec import Layout
from gnomon.spec.catalog import load_cluster, load_model

MODELS = ("llama-2-7b", "llama-3-8b", "gpt-oss-20b", "mixtral-8x7b", "deepseek-v2-lite", "falcon-7b", "gemma-3-4b")
H100 = load_cluster("dgx-h100", 4)


@st.composite
def problems(draw):
    """Return (model, layout, workload) of a served model."""
    model = load_model(draw(st.sampled_from(MODELS)))
    heads = model.num_kv_heads
    tps = [tp for tp in (1, 2, 4, 8) if model.num_heads % tp == 0 and (heads % tp == 0 or tp % heads == 0)]
    layout = Layout(tp=draw(st.sampled_from(tps)), pp=draw(st.sampled_from((1, 2))))
    compute = draw(st.sampled_from(("bf16", "fp16", "fp8", "int8")))
    narrower = [p for p in ("bf16", "fp8", "int8", "fp4") if OPERAND_BYTES[p] <= OPERAND_BYTES[compute]]
    workload = InferenceWorkload(
        prompt_len=draw(st.integers(1, 1500)),
        output_len=draw(st.integers(1, 500)),
        batch=draw(st.integers(1, 200)),
        prefill_batch=draw(st.integers(1, 4)),
        compute_precision=compute,
        weight_precision=draw(st.sampled_from(narrower)),
        kv_precision=draw(st.sampled_from(("bf16", "fp8"))),
    )
    return model, layout, workload


@settings(max_examples=40, deadline=None)
@given(problems())
def test_terms_add_up_and_bounds_hold(problem):
    model, layout, workload = problem
    found = plan_inference(model, H100, layout, workload)
    assert found.prefill.total_s == pytest.approx(found.ttft_s)
    assert found.decode.total_s == pytest.approx(found.tpot_s)
    assert 0.0 < found.prefill_mfu < 1.0
    assert 0.0 < found.decode_mbu < 1.0
    ranks = layout.tp * layout.pp
    assert found.memory.weights_bytes * ranks >= 0.999 * found.weights_bytes
    cache = found.memory.kv_cache_bytes * ranks
    assert cache >= 0.999 * workload.batch * found.kv_bytes_per_sequence
    # no machine is faster than one that does nothing but decode
    assert found.tokens_per_s <= workload.batch * workload.output_len / max(
        (workload.output_len - 1) * found.tpot_s, 1e-12
    )


@settings(max_examples=30, deadline=None)
@given(problems(), st.integers(1, 300))
def test_more_work_takes_longer(problem, more):
    model, layout, workload = problem
    base = plan_inference(model, H100, layout, workload)
    busier = plan_inference(model, H100, layout, workload.model_copy(update={"batch": workload.batch + more}))
    longer = plan_inference(model, H100, layout, workload.model_copy(update={"prompt_len": workload.prompt_len + more}))
    assert busier.tpot_s >= base.tpot_s * (1 - 1e-9)
    assert busier.memory.total_bytes > base.memory.total_bytes
    assert longer.tpot_s >= base.tpot_s * (1 - 1e-9)
    assert longer.memory.total_bytes > base.memory.total_bytes
    assert longer.max_batch <= base.max_batch


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 512), st.data())
def test_distinct_experts_stay_between_their_bounds(num_experts, data):
    chosen = data.draw(st.integers(1, num_experts))
    tokens = data.draw(st.integers(1, 5000))
    found = float(expected_distinct_experts(num_experts, chosen, tokens))
    assert chosen * (1 - 1e-9) <= found <= min(num_experts, chosen * tokens) * (1 + 1e-9)
    assert found <= float(expected_distinct_experts(num_experts, chosen, tokens + 1)) * (1 + 1e-12)
