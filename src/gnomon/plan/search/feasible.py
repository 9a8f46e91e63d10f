"""Which candidates can run at all, and why the others cannot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.schedule import supported
from gnomon.spec import ClusterSpec, ModelSpec, Workload

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


def rejections(
    axes: Mapping[str, Integers], model: ModelSpec, cluster: ClusterSpec, workload: Workload, num_ranks: int
) -> tuple[Mask, dict[str, int]]:
    """Return (which candidates can run, how many fail for each reason; the first that applies counts).

    `axes` holds the values of every axis as whole numbers, `schedule` as its place in SCHEDULES. Candidates that are
    another one by a different name (a schedule without a pipeline, ZeRO without replicas) are rejected too.
    """
    alive = np.ones(axes["tp"].shape, dtype=np.bool_)
    counts: dict[str, int] = {}
    for reason, bad in _rules(axes, model, cluster, workload, num_ranks):
        failed = alive & bad
        number = int(np.count_nonzero(failed))
        if number:
            counts[reason] = number
            alive &= ~bad
    return alive, counts


def _rules(
    axes: Mapping[str, Integers], model: ModelSpec, cluster: ClusterSpec, workload: Workload, num_ranks: int
) -> list[tuple[str, Mask]]:
    tp, pp, vpp, cp, ep, expert_tp = (axes[n] for n in ("tp", "pp", "vpp", "cp", "ep", "expert_tp"))
    inner = tp * pp * cp
    dp = np.maximum(num_ranks // inner, 1)
    replicas = dp * cp
    passes = dp * axes["micro_batch"]
    micro_batches = np.maximum(workload.global_batch // passes, 1)
    one_f_one_b = axes["schedule"] == 1
    moe = model.moe
    experts, width = (moe.num_experts, moe.expert_ffn_size) if moe else (1, 1)
    split = axes["sequence_parallel"] == 1
    return [
        ("tp x pp x cp does not divide the accelerators", num_ranks % inner != 0),
        ("the same as another candidate", _repeats(axes, replicas)),
        ("the batch does not divide by dp x micro-batch", workload.global_batch % passes != 0),
        ("tp does not divide the heads", _heads(tp, model)),
        ("tp does not divide the feed-forward", _feed_forward(tp, model)),
        ("sequence parallelism does not divide the sequence", split & (workload.seq_len % (cp * tp) != 0)),
        ("cp does not divide the sequence", (cp > 1) & (workload.seq_len % (2 * cp) != 0)),
        ("more stages than layers", pp * vpp > model.num_layers),
        ("chunks do not divide the layers", (vpp > 1) & (model.num_layers % (pp * vpp) != 0)),
        ("only 1f1b interleaves", (vpp > 1) & ~one_f_one_b),
        ("ep does not divide the experts", experts % ep != 0),
        ("expert_tp does not divide an expert", width % expert_tp != 0),
        ("ep x expert_tp does not divide dp x cp x tp", (replicas * tp) % (ep * expert_tp) != 0),
        ("the schedule cannot run these micro-batches", ~supported(axes["schedule"], pp, vpp, micro_batches)),
    ]


def _repeats(axes: Mapping[str, Integers], replicas: Integers) -> Mask:
    alone = axes["pp"] == 1
    plain = (axes["schedule"] == 1) & (axes["vpp"] == 1)
    unsplit = (axes["tp"] == 1) & (axes["sequence_parallel"] == 1)
    return (alone & ~plain) | (unsplit & axes["two_sequence_choices"]) | ((replicas == 1) & (axes["zero_stage"] > 0))


def _heads(tp: Integers, model: ModelSpec) -> Mask:
    if model.mla is not None:
        return np.asarray(model.num_heads % tp != 0)
    keys = (model.num_kv_heads % tp != 0) & (tp % model.num_kv_heads != 0)
    return np.asarray((model.num_heads % tp != 0) | keys)


def _feed_forward(tp: Integers, model: ModelSpec) -> Mask:
    moe = model.moe
    bad = np.zeros(tp.shape, dtype=np.bool_)
    if moe is None or moe.num_dense_layers:
        bad = bad | (model.ffn_hidden_size % tp != 0)
    if moe is not None and moe.shared_expert_ffn_size:
        bad = bad | (moe.shared_expert_ffn_size % tp != 0)
    return bad
