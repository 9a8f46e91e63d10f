"""Which candidates can run at all, and why the others cannot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.parameters import layer_counts
from gnomon.plan.schedule import supported
from gnomon.plan.search.space import SearchSpace
from gnomon.plan.stages import END_LAYERS, whole_chunks
from gnomon.spec import ModelSpec, Workload
from gnomon.spec.layout import SCHEDULES, Schedule

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
ONE_F_ONE_B = SCHEDULES.index("1f1b")


def plain_values(space: SearchSpace) -> dict[str, Integers]:
    """Return which value of an axis stands for the others where they are one layout by several names.

    `both_ways`: 1 with and without sequence parallelism (the same without tp); `plain_zero_stage`: of the stages
    without replicas; `plain_schedule`: of the schedules without a pipeline.
    """
    return {
        "both_ways": np.asarray(len(space.sequence_parallel) > 1),
        "plain_zero_stage": np.asarray(min(space.zero_stage)),
        "plain_schedule": np.asarray(SCHEDULES.index(min(space.schedule, key=_plainness))),
    }


def _plainness(schedule: Schedule) -> tuple[bool, bool, bool, int]:
    """Return the order in which schedules stand for the others on one stage, which dualpipe cannot run and on which
    gpipe alone holds more than it needs."""
    return schedule == "dualpipe", schedule == "gpipe", schedule != "1f1b", SCHEDULES.index(schedule)


def rejections(rules: list[tuple[str, Mask]], size: int) -> tuple[Mask, dict[str, int]]:
    """Return (which of `size` candidates no rule rejects, how many each rejects; the first that applies counts)."""
    alive = np.ones(size, dtype=np.bool_)
    counts: dict[str, int] = {}
    for reason, bad in rules:
        failed = alive & bad
        number = int(np.count_nonzero(failed))
        if number:
            counts[reason] = number
            alive &= ~bad
    return alive, counts


def state_rules(
    axes: Mapping[str, Integers], model: ModelSpec, workload: Workload, num_ranks: int
) -> list[tuple[str, Mask]]:
    """Return (reason, what it rejects) for the values of the axes that decide layers and states.

    Candidates that are another one by a different name (ZeRO without replicas) are rejected too; `axes` has the
    `plain_values`.
    """
    tp, pp, vpp, cp, ep, expert_tp = (axes[n] for n in ("tp", "pp", "vpp", "cp", "ep", "expert_tp"))
    inner = tp * pp * cp
    replicas = np.maximum(num_ranks // inner, 1) * cp
    passes = np.maximum(num_ranks // inner, 1) * axes["micro_batch"]
    moe = model.moe
    experts, width = (moe.num_experts, moe.expert_ffn_size) if moe else (1, 1)
    split = axes["sequence_parallel"] == 1
    copies = replicas * tp // (ep * expert_tp) if moe else replicas
    alone = (replicas == 1) & (copies <= 1)
    same = ((tp == 1) & split & axes["both_ways"]) | (alone & (axes["zero_stage"] != axes["plain_zero_stage"]))
    return [
        ("tp x pp x cp does not divide the accelerators", num_ranks % inner != 0),
        ("vpp > 1 needs more than one stage", (pp == 1) & (vpp > 1)),
        ("the same as another candidate", same),
        ("the batch does not divide by dp x micro-batch", workload.global_batch % passes != 0),
        ("tp does not divide the heads", _heads(tp, model)),
        ("tp does not divide the feed-forward", _feed_forward(tp, model)),
        ("sequence parallelism does not divide the sequence", split & _uneven(workload, cp * tp)),
        ("cp does not divide the sequence", (cp > 1) & (workload.seq_len % (2 * cp) != 0)),
        ("an encoder-decoder has one pipeline stage and whole sequences", (pp * cp > 1) & (model.encoder is not None)),
        ("more stages than layers", pp * vpp > model.num_layers + END_LAYERS * (vpp > 1)),
        ("chunks do not divide the layers", (vpp > 1) & ~whole_chunks(model.num_layers, pp * vpp)),
        ("ep does not divide the experts", experts % ep != 0),
        ("expert_tp does not divide an expert", width % expert_tp != 0),
        ("ep x expert_tp does not divide dp x cp x tp", (replicas * tp) % (ep * expert_tp) != 0),
    ]


def run_rules(axes: Mapping[str, Integers], micro_batches: Integers) -> list[tuple[str, Mask]]:
    """Return (reason, what it rejects) for a schedule with its stages and micro-batches.

    Without a pipeline all schedules but gpipe are the same, and gpipe takes as long and holds more.
    """
    schedule, pp, vpp = axes["schedule"], axes["pp"], axes["vpp"]
    straight = schedule == ONE_F_ONE_B
    return [
        ("the same as another candidate", (pp == 1) & (schedule != axes["plain_schedule"])),
        ("only 1f1b interleaves", (vpp > 1) & ~straight),
        ("the schedule cannot run these micro-batches", ~supported(schedule, pp, vpp, micro_batches)),
    ]


def _uneven(workload: Workload, ways: Integers) -> Mask:
    """Return where not every sequence divides; that of an encoder is among them."""
    return np.asarray((workload.seq_len % ways != 0) | ((workload.encoder_seq_len or 0) % ways != 0))


def _heads(tp: Integers, model: ModelSpec) -> Mask:
    if model.mla is not None:
        return np.asarray(model.num_heads % tp != 0)
    keys = (model.num_kv_heads % tp != 0) & (tp % model.num_kv_heads != 0)
    return np.asarray((model.num_heads % tp != 0) | keys)


def _feed_forward(tp: Integers, model: ModelSpec) -> Mask:
    moe = model.moe
    bad = np.zeros(tp.shape, dtype=np.bool_)
    if layer_counts(model)[0]:
        bad = bad | (model.ffn_hidden_size % tp != 0)
    if moe is not None and moe.shared_expert_ffn_size:
        bad = bad | (moe.shared_expert_ffn_size % tp != 0)
    return bad
