"""A layout that several values of an axis name runs under one of them, whichever the axis has."""

import numpy as np
import pytest

from gnomon.errors import PlanError
from gnomon.plan.planner import plan
from gnomon.plan.search import SearchSpace, search
from gnomon.plan.search.batch import Evaluator
from gnomon.report.scaling import best_by_number
from gnomon.spec import Layout, ModelSpec, Workload
from gnomon.spec.catalog import load_cluster, load_model

MODEL = ModelSpec(name="m", num_layers=8, hidden_size=512, num_heads=8, vocab_size=32000, max_seq_len=1024)
CLUSTER = load_cluster("dgx-h100", 1)
WORKLOAD = Workload(seq_len=1024, global_batch=8, micro_batch=1, precision="bf16", stack="megatron-core")
PLAIN = {"zero_stage": (0,), "micro_batch": (1, 2), "sequence_parallel": (True,), "schedule": ("1f1b",)}


def costs(ranks: int, **axes):
    """Return (step time, peak memory) of each candidate that runs, and how many are rejected by reason."""
    space = SearchSpace(**{"tp": (1,), "pp": (1,), **PLAIN, **axes})
    evaluator = Evaluator(MODEL, CLUSTER, WORKLOAD, space, ranks)
    found = []
    for batch in evaluator.batches(0, space.num_states):
        values = (batch.evaluation.step_time_s, batch.evaluation.peak_memory_bytes)
        flat = (np.broadcast_to(value, batch.numbers.shape).reshape(-1).tolist() for value in values)
        found += list(zip(*flat, strict=True))
        for number in batch.numbers.reshape(-1).tolist():
            plan(MODEL, CLUSTER, *space.layout(number, ranks, WORKLOAD))  # the planner takes it too
    return sorted(found), evaluator.rejected


@pytest.mark.parametrize("stages", [(1,), (2,), (3,), (1, 3), (3, 2), (0, 3)])
@pytest.mark.parametrize(("ranks", "split"), [(1, {}), (4, {"tp": (2,), "pp": (2,)}), (2, {"tp": (2,)})])
def test_sharded_states_without_replicas_cost_what_whole_ones_do(ranks, split, stages):
    whole, _ = costs(ranks, **split)
    sharded, rejected = costs(ranks, zero_stage=stages, **split)
    assert len(whole) == 6  # two micro-batches, three ways to recompute
    assert sharded == whole
    assert rejected.get("the same as another candidate", 0) == 6 * (len(stages) - 1)


@pytest.mark.parametrize("schedules", [("zb-h1",), ("zb-v",), ("v-min", "zb-h2"), ("gpipe", "zb-h1"), ("1f1b", "zb-v")])
def test_schedules_without_a_pipeline_cost_what_1f1b_does(schedules):
    plain, _ = costs(1)
    assert costs(1, schedule=schedules)[0] == plain


def test_gpipe_alone_runs_without_a_pipeline():
    plain, _ = costs(1)
    gpipe, rejected = costs(1, schedule=("gpipe", "dualpipe"))
    assert [seconds for seconds, _ in gpipe] == [seconds for seconds, _ in plain]
    assert rejected == {"the same as another candidate": 6}


def test_with_replicas_every_stage_is_a_layout_of_its_own():
    found, rejected = costs(4, zero_stage=(0, 1, 2, 3))
    assert len(found) == 4 * 6
    assert rejected == {}


def test_interleaving_without_a_pipeline_is_refused_under_its_own_name():
    with pytest.raises(PlanError, match=r"can run \(vpp > 1 needs more than one stage: 12\)"):
        search(MODEL, CLUSTER, WORKLOAD, space=SearchSpace(tp=(1,), pp=(1,), vpp=(2, 4), **PLAIN), accelerators=[1])


def test_strong_scaling_begins_with_one_accelerator_where_the_model_fits_on_it():
    workload = WORKLOAD.model_copy(update={"micro_batch": 8})
    estimate = plan(load_model("gpt2"), load_cluster("dgx-a100", 1), Layout(), workload)
    best = best_by_number(estimate)
    assert [candidate.num_accelerators for candidate in best] == [1, 2, 4, 8]
    assert best[0].layout.zero_stage == 0
