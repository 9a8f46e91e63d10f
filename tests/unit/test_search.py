"""The search against brute force with the scalar planner."""

from contextlib import suppress

import numpy as np
import pytest

from gnomon.errors import GnomonError, PlanError
from gnomon.plan.planner import plan
from gnomon.plan.search import RecomputeChoice, SearchSpace, default_space, search
from gnomon.plan.search.batch import Evaluator
from gnomon.plan.search.collect import Best, Front
from gnomon.plan.search.explain import compare
from gnomon.plan.search.sensitivity import sensitivity
from gnomon.spec import ModelSpec, MoESpec, Workload
from gnomon.spec.catalog import load_cluster, load_model

DENSE = ModelSpec(
    name="dense", num_layers=8, hidden_size=1024, num_heads=16, num_kv_heads=4, vocab_size=32000, max_seq_len=2048
)
SPARSE = DENSE.model_copy(
    update={"name": "sparse", "moe": MoESpec(num_experts=8, experts_per_token=2, expert_ffn_size=1024)}
)
CLUSTER = load_cluster("dgx-h100", 2)
WORKLOAD = Workload(seq_len=2048, global_batch=64, micro_batch=1, precision="bf16", stack="megatron-core")
SPACE = SearchSpace(
    tp=(1, 2, 4),
    pp=(1, 2, 4),
    vpp=(1, 2),
    ep=(1, 4),
    zero_stage=(0, 1, 3),
    micro_batch=(1, 4),
    schedule=("1f1b", "zb-h1", "zb-v"),
    recompute=(RecomputeChoice(mode="none"), RecomputeChoice(mode="full", share=0.5)),
)


@pytest.fixture(scope="module", params=[DENSE, SPARSE], ids=lambda model: model.name)
def evaluated(request):
    evaluator = Evaluator(request.param, CLUSTER, WORKLOAD, SPACE, 16)
    times, memories = {}, {}
    for batch in evaluator.batches(0, SPACE.num_states):
        for values, into in ((batch.evaluation.step_time_s, times), (batch.evaluation.peak_memory_bytes, memories)):
            flat = np.broadcast_to(values, batch.numbers.shape).reshape(-1)
            into.update(zip(batch.numbers.reshape(-1).tolist(), flat.tolist(), strict=True))
    return request.param, evaluator.rejected, times, memories


def is_corner(number):
    """Return whether each axis has its first or its last value."""
    layout, workload = SPACE.layout(number, 16, WORKLOAD)
    values = {**layout.model_dump(), "micro_batch": workload.micro_batch}
    axes = ("tp", "pp", "vpp", "ep", "zero_stage", "micro_batch", "schedule")  # recompute has two values only
    return all(values[axis] in (getattr(SPACE, axis)[0], getattr(SPACE, axis)[-1]) for axis in axes)


@pytest.fixture(scope="module")
def plans(evaluated):
    """Return {number: estimate, None where the planner refuses it} of the corners and of a sample of the rest."""
    numbers = set(np.random.default_rng(0).choice(SPACE.size, 250, replace=False).tolist())
    found = {}
    for number in range(SPACE.size):
        with suppress(GnomonError, ValueError, ZeroDivisionError):
            if number in numbers or is_corner(number):
                found[number] = None
                layout, workload = SPACE.layout(number, 16, WORKLOAD)
                found[number] = plan(evaluated[0], CLUSTER, layout, workload)
    return found


def test_every_candidate_costs_what_the_scalar_planner_says(evaluated, plans):
    _, _, times, memories = evaluated
    compared = times.keys() & plans.keys()
    assert len(compared) > 50
    for number in compared:
        assert times[number] == pytest.approx(plans[number].step_time_s, rel=1e-12)
        assert memories[number] == pytest.approx(plans[number].memory.total_bytes, rel=1e-12)


def test_only_repeats_are_left_out_of_what_the_planner_accepts(evaluated, plans):
    _, _, times, memories = evaluated
    kept = np.asarray([(times[number], memories[number]) for number in times])
    left_out = [estimate for number, estimate in plans.items() if estimate is not None and number not in times]
    assert len(left_out) > 10
    for estimate in left_out:
        found = (estimate.step_time_s, estimate.memory.total_bytes)
        assert np.isclose(kept, found, rtol=1e-12, atol=0.0).all(axis=1).any()


def test_evaluated_and_rejected_make_the_space(evaluated):
    _, rejected, times, _ = evaluated
    assert len(times) + sum(rejected.values()) == SPACE.size


def test_blocks_of_any_length_give_the_same(evaluated):
    model, rejected, times, _ = evaluated
    evaluator = Evaluator(model, CLUSTER, WORKLOAD, SPACE, 16)
    ranges = [(i, min(i + 7, SPACE.num_states)) for i in range(0, SPACE.num_states, 7)]
    assert sum(batch.numbers.size for some in ranges for batch in evaluator.batches(*some)) == len(times)
    assert evaluator.rejected == rejected


def test_the_best_and_the_front_are_those_of_brute_force(evaluated):
    model, _, times, memories = evaluated
    limit = float(np.median(list(memories.values())))
    result = search(model, CLUSTER, WORKLOAD, space=SPACE, top=5, memory_limit_bytes=limit)
    fitting = sorted((t, n) for n, t in times.items() if memories[n] <= limit)
    assert [row.candidate.step_time_s for row in result.best] == pytest.approx([t for t, _ in fitting[:5]])
    assert result.num_fitting == len(fitting)
    front, least = [], np.inf
    for seconds, number in sorted(fitting, key=lambda f: (f[0], memories[f[1]])):
        if memories[number] < least:
            least = memories[number]
            front.append(seconds)
    assert [c.step_time_s for c in result.pareto] == pytest.approx(front)


def test_memory_is_an_objective_and_order_is_stable():
    first = search(DENSE, CLUSTER, WORKLOAD, space=SPACE, top=4, objective="memory")
    again = search(DENSE, CLUSTER, WORKLOAD, space=SPACE, top=4, objective="memory")
    assert [r.candidate for r in first.best] == [r.candidate for r in again.best]
    memories = [r.candidate.peak_memory_bytes for r in first.best]
    assert memories == sorted(memories)


def test_several_numbers_of_accelerators_and_a_price():
    result = search(
        DENSE, CLUSTER, WORKLOAD, accelerators=[4, 16], top=3, objective="cost", price_per_accelerator_hour=2.0
    )
    best = result.best[0].candidate
    assert best.cost_per_step == pytest.approx(2.0 * best.step_time_s * best.num_accelerators / 3600)
    assert {c.num_accelerators for c in result.pareto} == {4, 16}


def test_why_a_layout_lost_adds_up():
    result = search(DENSE, CLUSTER, WORKLOAD, space=SPACE, top=5)
    best = result.best[0].estimate
    for row in result.best[1:]:
        assert sum(row.slower_s.values()) == pytest.approx(row.estimate.step_time_s - best.step_time_s, abs=1e-9)
        assert row.why
    assert compare(best, best) == ({}, "the best")


def test_better_hardware_never_makes_the_best_slower():
    gains = sensitivity(DENSE, CLUSTER, WORKLOAD, space=SPACE)
    assert len(gains) == 5
    assert all(gain.speedup >= 1.0 - 1e-9 for gain in gains)
    assert max(gain.speedup for gain in gains) > 1.05


def test_better_hardware_keeps_to_the_memory_limit_and_says_how_far_it_is():
    memories = [row.candidate.peak_memory_bytes for row in search(DENSE, CLUSTER, WORKLOAD, space=SPACE, top=99).best]
    limit = 1.001 * min(memories)
    seen = []
    gains = sensitivity(
        DENSE, CLUSTER, WORKLOAD, space=SPACE, memory_limit_bytes=limit, progress=lambda *now: seen.append(now)
    )
    tight = search(DENSE, CLUSTER, WORKLOAD, space=SPACE, top=1, memory_limit_bytes=limit).best[0].candidate
    roomy = search(DENSE, CLUSTER, WORKLOAD, space=SPACE, top=1, memory_limit_bytes=2.0 * limit).best[0].candidate
    assert roomy.step_time_s < tight.step_time_s
    assert gains[0].change == "twice the memory"
    assert gains[0].step_time_s == roomy.step_time_s
    for gain in gains:
        assert gain.step_time_s * gain.speedup == pytest.approx(tight.step_time_s)
    assert seen[-1] == (6 * SPACE.size, 6 * SPACE.size)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {6 * SPACE.size}


def test_a_limit_above_the_memory_of_the_device_is_refused():
    has = CLUSTER.accelerator.memory_bytes
    message = r"The memory limit is 160\.00 GiB, but 'h100-sxm' has 80\.00 GiB\. Set at most 80\.00 GiB"
    for asked in (search, sensitivity):
        with pytest.raises(PlanError, match=message):
            asked(DENSE, CLUSTER, WORKLOAD, space=SPACE, memory_limit_bytes=2.0 * has)
    whole, given = (
        search(DENSE, CLUSTER, WORKLOAD, space=SPACE, memory_limit_bytes=limit).model_copy(update={"seconds": 0.0})
        for limit in (None, has)
    )
    assert whole == given


def test_a_limit_is_all_that_is_known_of_a_device_of_unknown_memory():
    unknown = CLUSTER.model_copy(update={"accelerator": CLUSTER.accelerator.model_copy(update={"memory_bytes": None})})
    assert search(DENSE, unknown, WORKLOAD, space=SPACE, memory_limit_bytes=2.0**50).best


def test_a_space_in_which_nothing_runs_says_why():
    with pytest.raises(PlanError, match=r"No layout of the search space can run .*tp does not divide the heads"):
        search(DENSE, CLUSTER, WORKLOAD, space=SPACE.model_copy(update={"tp": (3,), "pp": (1,)}), accelerators=[3])
    with pytest.raises(PlanError, match="accelerators=99"):
        search(DENSE, CLUSTER, WORKLOAD, accelerators=[99])


def test_offloading_needs_a_host_whose_bandwidth_is_known():
    axes = {"offload_optimizer": (0.0, 1.0)}
    space = SPACE.model_copy(update=axes)
    unknown = CLUSTER.accelerator.model_copy(update={"host_bandwidth_bytes_per_s": None})
    with pytest.raises(PlanError, match="The axis offload_optimizer moves data to the host"):
        search(DENSE, CLUSTER.model_copy(update={"accelerator": unknown}), WORKLOAD, space=space)
    found = search(DENSE, CLUSTER, WORKLOAD, space=space, objective="memory", top=1).best[0]
    assert found.candidate.layout.offload_optimizer == 1.0
    assert found.estimate.memory.optimizer_bytes == 0.0


def test_collections_keep_what_sorting_would():
    random = np.random.default_rng(0)
    best, front = Best(7), Front()
    times, memories = random.random(5000), random.random(5000)
    numbers = np.arange(5000)
    for part in np.array_split(numbers, 13):
        best.add(times[part], memories[part], part)
        front.add(times[part], memories[part], part)
    assert best.numbers.tolist() == np.argsort(times)[:7].tolist()
    beaten = [
        np.any((times <= t) & (memories <= m) & ((times < t) | (memories < m)))
        for t, m in zip(times, memories, strict=True)
    ]
    assert sorted(front.numbers.tolist()) == numbers[~np.array(beaten)].tolist()


def test_the_default_space_holds_only_values_that_divide():
    space = default_space(SPARSE, 16, 8, 64)
    assert all(SPARSE.num_heads % tp == 0 for tp in space.tp)
    assert all(8 % ep == 0 for ep in space.ep)
    assert space.size > 1000


def test_chunks_of_which_the_first_and_the_last_are_short():
    """Llama 3 405B has 126 layers in 16 x 8 chunks of one (arXiv 2407.21783, section 3.3.2)."""
    model, cluster = load_model("llama-3.1-405b"), load_cluster("dgx-h100", 256)
    batch = WORKLOAD.model_copy(update={"seq_len": 8192, "global_batch": 256})
    chunks = default_space(model, 2048, 8, 256).vpp
    assert 8 in chunks
    space = SearchSpace(tp=(8,), pp=(16,), vpp=chunks, zero_stage=(1,), micro_batch=(1,), schedule=("1f1b",))
    evaluator = Evaluator(model, cluster, batch, space, 2048)
    numbers = np.concatenate([found.numbers.reshape(-1) for found in evaluator.batches(0, space.num_states)])
    layouts = [space.layout(int(number), 2048, batch) for number in numbers]
    # 126 layers, embedding and head fill 16 x 3 chunks no better than 16 x 5 or 16 x 6
    assert {layout.vpp for layout, _ in layouts} == {1, 2, 4, 8}
    whole = next(layout for layout, _ in layouts if layout.vpp == 8)
    assert plan(model, cluster, whole, batch).step_time_s > 0


def test_axes_replace_values_of_each_number_of_accelerators_own_space():
    """40 accelerators can have 5 stages, which 16 cannot: naming an axis may not take them away."""
    batch = WORKLOAD.model_copy(update={"global_batch": 80})
    model, cluster = DENSE.model_copy(update={"num_layers": 10}), load_cluster("dgx-h100", 8)
    asked = {"accelerators": [16, 40], "objective": "cost", "top": 3}
    default = search(model, cluster, batch, **asked)
    named = search(model, cluster, batch, **asked, axes={"cp": (1, 2, 4, 8)})
    assert named.num_candidates == default.num_candidates
    assert [x.candidate for x in named.best] == [x.candidate for x in default.best]
    assert search(model, cluster, batch, accelerators=[40], axes={"pp": (5,)}).best


def test_what_no_layout_can_have_is_refused_before_the_search():
    with pytest.raises(PlanError, match="is for experts"):
        search(DENSE, CLUSTER, WORKLOAD.model_copy(update={"expert_imbalance": 2.0}), space=SPACE)
    learned = DENSE.model_copy(update={"position": "learned"})
    with pytest.raises(PlanError, match="learned positions"):
        search(learned, CLUSTER, WORKLOAD.model_copy(update={"seq_len": 4096}), space=SPACE)
