"""What each pipeline rank holds: layers, embedding, head, second copies; and what hides behind its backward pass."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.plan.cases import Cases
from gnomon.plan.memory import activation_tensors, training_memory
from gnomon.plan.parameters import count_parameters
from gnomon.plan.planner import plan
from gnomon.plan.stages import STAGES, stage_layers, stage_parameters
from gnomon.spec import Layout, MLASpec, ModelSpec, MoESpec, Workload
from gnomon.spec.catalog import load_cluster, load_model, load_stack
from gnomon.spec.layout import SCHEDULES

SMALL = {"num_layers": 16, "hidden_size": 64, "num_heads": 8, "vocab_size": 1000, "max_seq_len": 128}
MODEL = ModelSpec(**SMALL, position="rope", tied_embeddings=False)
EXPERTS = ModelSpec(
    **SMALL,
    position="rope",
    tied_embeddings=False,
    moe=MoESpec(num_experts=8, experts_per_token=2, expert_ffn_size=32, num_shared_experts=1, num_dense_layers=2),
    mla=MLASpec(kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8),
)


def cases_of(model: ModelSpec = MODEL, **layout) -> Cases:
    work = Workload(seq_len=128, global_batch=64, micro_batch=1, precision="bf16", stack="megatron-core")
    return Cases.of(model, load_cluster("dgx-h100", num_nodes=32), Layout(**layout), work, load_stack(work.stack))


def per_rank(cases: Cases, pp: int) -> list[float]:
    """Parameters of each pipeline rank, in order."""
    first, middle, last = (float(sum(stage_parameters(cases, stage))[0]) for stage in STAGES)
    return [first] if pp == 1 else [first, *[middle] * (pp - 2), last]


@pytest.mark.parametrize(
    ("layout", "counts"),
    [
        ({"pp": 2, "first_stage_layers": 10}, (10, 6)),
        ({"pp": 2, "last_stage_layers": 4}, (12, 4)),
        ({"pp": 4, "first_stage_layers": 1}, (1, 5, 5, 5)),
        ({"pp": 4, "last_stage_layers": 1}, (5, 5, 5, 1)),
        ({"pp": 4, "first_stage_layers": 3, "last_stage_layers": 1}, (3, 6, 6, 1)),
        ({"pp": 4}, (4, 4, 4, 4)),
        ({"pp": 3}, (5, 6, 5)),
    ],
)
def test_stages_share_the_layers_that_no_end_was_given(layout, counts):
    found = stage_layers(cases_of(**layout))
    first, middle, last = (float(x[0]) for x in (found.first, found.middle, found.last))
    assert (first, *[middle] * (layout["pp"] - 2), last) == counts
    assert sum(counts) == 16


@given(
    st.sampled_from(SCHEDULES),
    st.sampled_from([1, 2, 4, 8]),
    st.booleans(),
    st.sampled_from([MODEL, EXPERTS]),
    st.integers(0, 2),
)
def test_every_parameter_lies_on_one_rank_and_in_dualpipe_on_two(schedule, pp, tied, model, mtp):
    model = model.model_copy(update={"tied_embeddings": tied, "num_mtp_layers": mtp})
    cases, count = cases_of(model, pp=pp, schedule=schedule), count_parameters(model)
    copies = 2 if schedule == "dualpipe" and pp > 1 else 1
    # a tied matrix lies at both ends of a straight pipeline, and so does one that prediction modules look up
    straight = pp > 1 and schedule in ("gpipe", "1f1b", "zb-h1", "zb-h2")
    table = model.vocab_size * model.hidden_size
    expected = copies * (count.total + count.mtp) + straight * (tied or mtp > 0) * table
    assert sum(per_rank(cases, pp)) == pytest.approx(expected, rel=1e-12)


def test_schedules_that_fold_the_model_put_the_head_on_the_first_rank():
    straight, folded = (per_rank(cases_of(pp=4, schedule=name), 4) for name in ("1f1b", "zb-v"))
    head = 1000 * 64
    assert folded[0] == straight[0] + head
    assert folded[3] == straight[3] - head
    both = per_rank(cases_of(pp=4, schedule="dualpipe"), 4)
    assert both == [straight[0] + straight[3], 2 * straight[1], 2 * straight[1], straight[0] + straight[3]]


def test_dualpipe_holds_weights_and_gradients_twice_and_shares_the_optimizer_state():
    plain, dual = (training_memory(cases_of(pp=4, dp=4, zero_stage=1, schedule=name)) for name in ("1f1b", "dualpipe"))
    ends = per_rank(cases_of(pp=4), 4)
    assert dual.weights[0] == 2 * (ends[0] + ends[3])
    assert dual.gradients[0] == 2 * dual.weights[0]  # fp32
    assert dual.optimizer[0] == 12 * (ends[0] + ends[3]) / 8
    assert plain.optimizer[0] == pytest.approx(12 * max(ends) / 4)


def test_multi_token_prediction_weighs_what_its_module_does():
    counts = [0, 1, 2]
    weights = [
        training_memory(cases_of(EXPERTS.model_copy(update={"num_mtp_layers": n}), pp=1)).weights[0] for n in counts
    ]
    module = count_parameters(EXPERTS.model_copy(update={"num_mtp_layers": 1})).mtp
    assert np.diff(weights) == pytest.approx([2 * module] * 2)


def test_ranks_beyond_the_key_heads_have_copies():
    shared = MODEL.model_copy(update={"num_kv_heads": 1})
    for tp in (1, 2, 8):
        keys = activation_tensors(cases_of(shared, tp=tp))["keys"]
        assert keys[0] == 128 * 8 * 2  # tokens, one head of 8, bf16


KEPT = [
    ("none", 1.0, None),
    ("selective", 1.0, None),
    ("full", 1.0, {"layer input"}),
    ("full", 0.5, None),
    ("per_op", 1.0, {"layer input", "queries", "values", "attention output", "up projection", "feed-forward output"}),
    ("per_op", 0.25, None),
    ("products", 1.0, {"layer input", "attention output"}),
    ("products", 0.25, None),
]


@pytest.mark.parametrize("offloaded", [0.0, 0.25])
@pytest.mark.parametrize("kernel", ["flash", "unfused"])
@pytest.mark.parametrize("name", ["llama-3.1-70b", "mixtral-8x7b"])
@pytest.mark.parametrize(("mode", "share", "names"), KEPT)
def test_activation_tensors_add_up_to_what_a_layer_adds_to_its_stage(mode, share, names, name, kernel, offloaded):
    """GPipe keeps all micro-batches: 16 more of them keep 16 times the list in every layer of the stage."""
    layout = Layout(tp=8, pp=2, schedule="gpipe", recompute=mode, recompute_share=share, offload_activations=offloaded)
    few, many = (
        plan(
            load_model(name),
            load_cluster("dgx-h100", num_nodes=2),
            layout,
            Workload(
                seq_len=2048,
                global_batch=count,
                micro_batch=1,
                precision="bf16",
                stack="megatron-core",
                attention_kernel=kernel,
            ),
        )
        for count in (32, 48)
    )
    more = many.stages[0].memory.activations_bytes - few.stages[0].memory.activations_bytes
    assert sum(few.activation_tensors.values()) * 16 * few.stages[0].num_layers == pytest.approx(more)
    if names is not None:
        attended = {"softmax"} if kernel == "unfused" and mode != "full" else set()
        assert set(few.activation_tensors) >= names | attended
        assert "product inputs" not in few.activation_tensors


def test_full_recomputation_keeps_the_input_of_a_layer_alone():
    workload = Workload(seq_len=8192, global_batch=8, micro_batch=1, precision="bf16", stack="megatron-core")
    model, cluster = load_model("llama-3.1-70b"), load_cluster("dgx-h100")
    for kernel in ("flash", "unfused"):
        asked = workload.model_copy(update={"attention_kernel": kernel})
        found = plan(model, cluster, Layout(tp=8, recompute="full"), asked)
        assert dict(found.activation_tensors) == {"layer input": 8192 * 8192 * 2 / 8}


@pytest.mark.parametrize("stack", ["deepspeed", "megatron-core", "megatron"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_recomputation_never_makes_a_step_shorter(stack, zero_stage):
    work = Workload(seq_len=4096, global_batch=256, micro_batch=1, precision="bf16", stack=stack)
    cluster, model = load_cluster("dgx-h100", num_nodes=8), load_model("gemma-3-12b")
    none, full = (
        plan(model, cluster, Layout(dp=8, tp=4, cp=2, zero_stage=zero_stage, recompute=mode), work).step_time_s
        for mode in ("none", "full")
    )
    assert full > none
