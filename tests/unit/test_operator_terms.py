"""The mapping of trace events onto terms, on event trees with a known answer."""

from __future__ import annotations

import pytest

from gnomon.errors import ReportError
from gnomon.profile.operator_names import is_autograd_node, term_of_annotation, term_of_operator
from gnomon.profile.step_profile import StepProfile, attribute_steps, scale_factor, time_breakdown, typical_step
from gnomon.profile.trace_events import TraceEvent

MAIN, GLOO, STREAM = "1/1", "1/2", "0/7"
WRAPPER = "autograd::engine::evaluate_function: MmBackward0"


def op(name, start_ms, end_ms, thread=MAIN, category="cpu_op", **fields):
    return TraceEvent(
        name=name,
        category=category,
        start_ns=int(start_ms * 1e6),
        end_ns=int(end_ms * 1e6),
        thread=thread,
        **fields,
    )


def scope(name, start_ms, end_ms, thread=MAIN):
    return op(name, start_ms, end_ms, thread, "user_annotation")


def kernel(name, start_ms, end_ms, stream=STREAM, **fields):
    return op(name, start_ms, end_ms, stream, "kernel", **fields)


def attribute(*events):
    (step,) = attribute_steps(sorted(events, key=lambda e: (e.start_ns, -e.end_ns)))
    return step


def milliseconds(step):
    return {term: round(seconds * 1e3, 6) for term, seconds in step.terms.items()}


def test_nested_operators_count_once_and_belong_to_the_outermost_decided_name():
    step = attribute(
        scope("gnomon::step", 0, 100),
        op("aten::linear", 10, 30),
        op("aten::t", 10, 11),
        op("aten::addmm", 11, 30),
        op("aten::copy_", 11, 15),
        op("aten::layer_norm", 40, 45),
        op("aten::native_layer_norm", 41, 45),
        op("aten::scaled_dot_product_attention", 50, 70),
        op("aten::matmul", 51, 60),
        op("aten::softmax", 60, 65),
    )
    assert milliseconds(step) == {"matmul_s": 20, "elementwise_s": 5, "attention_s": 20}
    assert step.step_time_s == pytest.approx(0.1)
    assert step.operators["aten::linear", "matmul_s"] == (1, pytest.approx(0.02))
    assert ("aten::addmm", "matmul_s") not in step.operators


def test_a_decided_operator_inside_an_undecided_one_is_cut_out_of_it():
    step = attribute(scope("gnomon::step", 0, 20), op("library::fused_block", 0, 10), op("aten::mm", 2, 6))
    assert milliseconds(step) == {"elementwise_s": 6, "matmul_s": 4}
    assert step.operators["library::fused_block", "elementwise_s"] == (1, pytest.approx(0.006))


def test_optimizer_clipping_and_data_scopes_own_all_their_wall_time():
    step = attribute(
        scope("gnomon::step", 0, 60),
        scope("gnomon::data", 0, 10),
        op("aten::copy_", 2, 3),
        scope("gnomon::clipping", 20, 30),
        op("aten::linalg_vector_norm", 21, 22),
        scope("Optimizer.step#AdamW.step", 30, 50),
        op("aten::mm", 31, 32),
        scope("Optimizer.zero_grad#AdamW.zero_grad", 50, 51),
    )
    assert milliseconds(step) == {"data_s": 10, "optimizer_s": 31}


def test_embedding_head_and_loss_take_forward_and_backward():
    step = attribute(
        scope("gnomon::step", 0, 100),
        scope("gnomon::forward", 0, 40),
        scope("gnomon::embedding", 0, 10),
        op("aten::slice", 1, 2, sequence=1),
        op("aten::add", 2, 8, sequence=2),
        op("aten::mul", 10, 14, sequence=3),
        scope("gnomon::head", 20, 30),
        op("aten::linear", 20, 29, sequence=4),
        op("aten::mm", 21, 29, sequence=5),
        op("aten::to", 31, 35, sequence=6),
        op("aten::cross_entropy_loss", 35, 40, sequence=7),
        op("autograd::engine::evaluate_function: ToCopyBackward0", 40, 50, sequence=6, is_backward=True),
        op("aten::to", 41, 50),
        op("autograd::engine::evaluate_function: MmBackward0", 50, 70, sequence=5, is_backward=True),
        op("MmBackward0", 50, 70, sequence=5, is_backward=True),
        op("aten::mm", 52, 58),
        op("aten::mm", 60, 68),
        op("autograd::engine::evaluate_function: MulBackward0", 70, 80, sequence=3, is_backward=True),
        op("aten::mul", 72, 80),
        op("autograd::engine::evaluate_function: AddBackward0", 80, 90, sequence=2, is_backward=True),
        op("aten::sum", 82, 90),
        op("autograd::engine::evaluate_function: torch::autograd::AccumulateGrad", 90, 95),
        op("torch::autograd::AccumulateGrad", 90, 95),
        op("aten::add_", 91, 95),
    )
    expected_head = (1 + 6) + 9 + 4 + 5 + 9 + (6 + 8) + 8
    assert milliseconds(step) == {"embedding_head_s": expected_head, "elementwise_s": 4 + 8 + 4}
    assert step.operators["aten::mm", "embedding_head_s"] == (2, pytest.approx(0.014))


def test_backward_of_a_decomposed_attention_is_attention():
    step = attribute(
        scope("gnomon::step", 0, 50),
        op("aten::scaled_dot_product_attention", 0, 10, sequence=1),
        op("aten::_scaled_dot_product_attention_math", 0, 10, sequence=1),
        op("aten::bmm", 1, 5, sequence=2),
        op("autograd::engine::evaluate_function: BmmBackward0", 20, 40, sequence=2, is_backward=True),
        op("aten::bmm", 21, 30),
        op("aten::bmm", 30, 40),
    )
    assert milliseconds(step) == {"attention_s": 10 + 19}


def test_backward_follows_the_forward_operator_that_started_last_with_its_number():
    step = attribute(
        scope("gnomon::step", 0, 50),
        scope("gnomon::embedding", 0, 5),
        op("aten::clone", 0, 5, sequence=9),
        op("aten::mul", 6, 8, sequence=9),
        op("autograd::engine::evaluate_function: MulBackward0", 20, 30, sequence=9, is_backward=True),
        op("aten::mul", 20, 30),
    )
    assert milliseconds(step) == {"embedding_head_s": 5, "elementwise_s": 12}


def test_only_exposed_communication_counts_on_a_cpu():
    step = attribute(
        scope("gnomon::step", 0, 100),
        op("aten::mm", 0, 40),
        op("c10d::allreduce_", 40, 42),
        scope("gloo:all_reduce", 41, 80, thread=GLOO),
        op("aten::mm", 50, 60),
        op("torch.distributed.ddp.reducer::copy_bucket_to_grad", 80, 83),
        op("aten::copy_", 80, 83),
    )
    assert milliseconds(step) == {"matmul_s": 50, "communication_s": 2 + 8 + 20 + 3}


def test_operators_on_two_threads_at_once_count_wall_time_once():
    step = attribute(
        scope("gnomon::step", 0, 100),
        op("aten::mm", 0, 40),
        op("aten::gelu_backward", 20, 60, thread="1/9"),
    )
    assert milliseconds(step) == {"matmul_s": 40, "elementwise_s": 20}


def test_on_cuda_kernels_count_and_belong_to_the_operator_that_launched_them():
    step = attribute(
        scope("gnomon::step", 0, 100),
        scope("gnomon::data", 0, 12),
        op("aten::copy_", 1, 2, external_id=1),
        op("aten::linear", 12, 14, external_id=2),
        op("aten::mm", 12, 14, external_id=3),
        scope("Optimizer.step#AdamW.step", 20, 22),
        op("aten::_fused_adamw_", 20, 22, external_id=4),
        op("Memcpy HtoD", 8, 10, STREAM, "gpu_memcpy", external_id=1),
        kernel("sm90_gemm", 20, 50, external_id=3),
        kernel("ncclDevKernel_AllReduce_Sum_f32_RING_LL", 40, 70, "0/20", external_id=9),
        kernel("multi_tensor_apply", 70, 80, external_id=4),
        kernel("unlinked", 82, 83),
    )
    assert milliseconds(step) == {
        "data_s": 12,
        "matmul_s": 30,
        "communication_s": 20,
        "optimizer_s": 10,
        "elementwise_s": 1,
    }


def test_each_step_has_its_own_profile_and_events_between_steps_count_nowhere():
    events = [
        scope("gnomon::step", 0, 10),
        op("aten::mm", 0, 4),
        op("aten::mm", 10, 20),
        scope("gnomon::step", 20, 40),
        op("aten::mm", 20, 28),
    ]
    first, second = attribute_steps(events)
    assert milliseconds(first) == {"matmul_s": 4}
    assert milliseconds(second) == {"matmul_s": 8}
    middle = typical_step([first, second])
    assert middle.step_time_s == pytest.approx(0.015)
    assert milliseconds(middle) == {"matmul_s": 6}
    assert middle.operators["aten::mm", "matmul_s"] == (1, pytest.approx(0.006))


def test_the_fastest_and_the_slowest_of_four_steps_are_left_out():
    def made(step_time_s, **terms):
        operators = {(f"{term}.operator", term): (1.0, seconds) for term, seconds in terms.items()}
        return StepProfile(step_time_s=step_time_s, terms=terms, operators=operators)

    steps = [made(9, data_s=8), made(2, matmul_s=1), made(1, matmul_s=0.5), made(3, matmul_s=2, attention_s=1)]
    typical = typical_step(steps)
    assert typical.step_time_s == 2.5
    assert typical.terms == {"matmul_s": 1.5, "attention_s": 0.5}
    assert typical.operators["attention_s.operator", "attention_s"] == (0.5, 0.5)
    assert typical_step(steps[:1]) == steps[0]


def test_a_trace_without_steps_is_an_error():
    with pytest.raises(ReportError, match="no 'gnomon::step' scope"):
        attribute_steps([op("aten::mm", 0, 1)])


def test_busy_terms_that_exceed_the_unprofiled_step_are_scaled_down():
    breakdown = time_breakdown({"matmul_s": 0.06, "elementwise_s": 0.06}, 0.1)
    assert (breakdown.matmul_s, breakdown.elementwise_s, breakdown.idle_s) == pytest.approx((0.05, 0.05, 0.0))
    assert scale_factor({"matmul_s": 0.2}, 0.1) == pytest.approx(0.5)


def test_busy_terms_that_fit_stay_and_the_rest_is_idle():
    breakdown = time_breakdown({"matmul_s": 0.06}, 0.1)
    assert (breakdown.matmul_s, breakdown.idle_s) == pytest.approx((0.06, 0.04))
    assert time_breakdown({}, 0.1).idle_s == 0.1


@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("aten::mm", "matmul_s"),
        ("aten::linear", "matmul_s"),
        ("mkldnn::_linear_pointwise", "matmul_s"),
        ("aten::mkldnn_linear", "matmul_s"),
        ("aten::mul", None),
        ("aten::layer_norm", None),
        ("aten::scaled_dot_product_attention", "attention_s"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention_s"),
        ("aten::_scaled_dot_product_efficient_attention", "attention_s"),
        ("aten::_flash_attention_forward", "attention_s"),
        ("flash_attn::_flash_attn_backward", "attention_s"),
        ("aten::embedding_dense_backward", "embedding_head_s"),
        ("aten::_log_softmax_backward_data", "embedding_head_s"),
        ("c10d::allreduce_", "communication_s"),
        ("torch::distributed::reducer::mul_out", "communication_s"),
    ],
)
def test_terms_of_operator_names(name, term):
    assert term_of_operator(name) == term


def test_annotations_and_autograd_nodes_are_recognised():
    assert term_of_annotation("Optimizer.step#AdamW.step") == "optimizer_s"
    assert term_of_annotation("nccl:all_reduce") == "communication_s"
    assert term_of_annotation("DistributedDataParallel.forward") is None
    assert is_autograd_node(WRAPPER)
    assert is_autograd_node("ScaledDotProductFlashAttentionForCpuBackward0")
    assert is_autograd_node("torch::autograd::AccumulateGrad")
    assert not is_autograd_node("aten::gelu_backward")
    assert not is_autograd_node("aten::conv2d")
