"""What must hold for every plan."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gnomon.errors import GnomonError
from gnomon.plan.planner import plan
from gnomon.spec import ClusterSpec, Layout, ModelSpec, Workload
from gnomon.spec.catalog import load_cluster, load_model
from plan_fixtures import constant_cluster

CLUSTER = constant_cluster(dispatch_s=1e-6, collectives={})
sizes = st.sampled_from([1, 2, 4, 8])


def gpt(layers: int, heads: int) -> ModelSpec:
    return ModelSpec(num_layers=layers, hidden_size=32 * heads, num_heads=heads, vocab_size=256, max_seq_len=1024)


@given(layers=st.integers(1, 8), heads=st.integers(1, 8), batch=sizes, length=st.integers(1, 512), dp=sizes)
def test_more_work_never_takes_less_time_or_memory(layers, heads, batch, length, dp):
    def at(layers: int, batch: int, length: int):
        return plan(
            gpt(layers, heads),
            CLUSTER,
            Layout(dp=dp),
            Workload(seq_len=length, global_batch=batch * dp, micro_batch=batch),
        )

    base = at(layers, batch, length)
    for more in (at(layers + 1, batch, length), at(layers, 2 * batch, length), at(layers, batch, length + 1)):
        assert more.step_time_s > base.step_time_s
        assert more.memory.total_bytes >= base.memory.total_bytes
        assert more.model_flops > base.model_flops


@given(layers=st.integers(1, 6), heads=st.integers(1, 6), batch=sizes, accumulation=sizes, dp=sizes)
def test_the_terms_add_up_and_survive_json(layers, heads, batch, accumulation, dp):
    workload = Workload(seq_len=64, global_batch=batch * accumulation * dp, micro_batch=batch)
    estimate = plan(gpt(layers, heads), CLUSTER, Layout(dp=dp), workload)
    assert abs(estimate.time.total_s - estimate.step_time_s) < 1e-12
    assert all(value >= 0 for value in estimate.memory.as_dict().values())
    assert estimate.tokens_per_s * estimate.step_time_s == pytest.approx(workload.tokens_per_step)
    assert type(estimate).from_mapping(estimate.to_mapping()) == estimate


@given(batch=sizes, dp=sizes)
def test_data_parallel_ranks_do_not_change_the_computation_of_one_rank(batch, dp):
    one = plan(gpt(2, 2), CLUSTER, Layout(), Workload(seq_len=32, global_batch=batch))
    many = plan(gpt(2, 2), CLUSTER, Layout(dp=dp), Workload(seq_len=32, global_batch=batch * dp, micro_batch=batch))
    assert one.time.matmul_s == many.time.matmul_s
    assert many.time.communication_s > 0 or dp == 1


def faster(cluster: ClusterSpec, what: str) -> ClusterSpec:
    """Return the cluster with twice the peaks, the memory bandwidth, or the rate of every tier."""
    if what == "network":
        tiers = [t.model_copy(update={"bandwidth_bytes_per_s": 2 * t.bandwidth_bytes_per_s}) for t in cluster.tiers]
        return cluster.model_copy(update={"tiers": tuple(tiers)})
    device = cluster.accelerator
    changed = {
        "peaks": {"peak_flops": {name: 2 * peak for name, peak in device.peak_flops.items()}},
        "memory": {"memory_bandwidth_bytes_per_s": 2 * device.memory_bandwidth_bytes_per_s},
    }
    return cluster.model_copy(update={"accelerator": device.model_copy(update=changed[what])})


layouts = st.builds(
    Layout,
    dp=st.sampled_from([1, 2, 4]),
    tp=sizes,
    zero_stage=st.sampled_from([0, 1, 2, 3]),
    recompute=st.sampled_from(["none", "selective", "full"]),
)


@given(
    machine=st.sampled_from(["dgx-a100", "dgx-h100", "gb200-nvl72"]),
    stack=st.sampled_from(["megatron-core", "fsdp", "fsdp-compiled", "deepspeed", "megatron"]),
    layout=layouts,
    accumulation=sizes,
    length=st.sampled_from([1024, 4096]),
    what=st.sampled_from(["peaks", "memory", "network"]),
)
@example(  # a collective hides behind launches that show, too
    machine="gb200-nvl72",
    stack="fsdp-compiled",
    layout=Layout(dp=4, cp=2, zero_stage=1),
    accumulation=1,
    length=1024,
    what="peaks",
)
def test_neither_a_faster_machine_nor_less_work_makes_a_step_longer(machine, stack, layout, accumulation, length, what):
    model, cluster = load_model("llama-3.1-8b"), load_cluster(machine, num_nodes=16)

    def step_s(cluster: ClusterSpec, length: int) -> float:
        batch = layout.dp * accumulation
        workload = Workload(seq_len=length, global_batch=batch, precision="bf16", stack=stack)
        try:
            return plan(model, cluster, layout, workload).step_time_s
        except GnomonError:
            assume(False)

    base = step_s(cluster, length)
    assert step_s(faster(cluster, what), length) <= base * (1 + 1e-9)
    assert step_s(cluster, length // 2) <= base * (1 + 1e-9)
