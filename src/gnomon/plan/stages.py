"""How many layers each pipeline stage has, and how many parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases

STAGES = ("first", "middle", "last")


@dataclass(frozen=True, kw_only=True)
class StageLayers:
    """Layers on the first, on each of the others, and on the last stage; all are the whole model when pp is 1."""

    first: Array
    middle: Array
    last: Array


def stage_layers(cases: Cases) -> StageLayers:
    """Return the layers per stage: equal where they divide; else the first and the last, which also hold embedding
    and head, have fewer. Numbers that the layout gives are kept."""
    split, total = cases.split, cases.model.num_layers
    pp, chunks = split.pp, split.pp * split.vpp
    middle = np.ceil(total / chunks) * split.vpp
    short = pp * middle - total
    first = middle - np.floor(short / 2.0)
    last = middle - np.ceil(short / 2.0)
    uneven = (first < 0) | (last < 0)
    first, middle, last = (np.where(uneven, total / pp, x) for x in (first, middle, last))
    first = np.where(split.first_stage_layers >= 0, split.first_stage_layers, first)
    last = np.where(split.last_stage_layers >= 0, split.last_stage_layers, last)
    given = (split.first_stage_layers >= 0) | (split.last_stage_layers >= 0)
    middle = np.where(given, (total - first - last) / np.maximum(pp - 2.0, 1.0), middle)
    one = pp == 1
    return StageLayers(
        first=np.where(one, total, first), middle=np.where(one, total, middle), last=np.where(one, total, last)
    )


def stage_parameters(cases: Cases, stage: str) -> tuple[Array, Array]:
    """Return (parameters that every data-parallel rank has, parameters of experts) of one rank on a stage."""
    model, split = cases.model, cases.split
    layers = getattr(stage_layers(cases), stage)
    shared = layers * model.layer_parameters / split.tp
    first = (split.pp == 1) | (stage == "first")
    last = (split.pp == 1) | (stage == "last")
    head = model.head_parameters + np.where(split.pp > 1, model.tied * model.embedding_parameters, 0.0)
    shared = shared + (first * model.embedding_parameters + last * head) / split.tp
    experts = layers / model.num_layers * model.expert_parameters / (split.ep * split.expert_tp)
    return shared, experts


def held_parameters(cases: Cases) -> Array:
    """Return the parameters whose gradients one rank accumulates, on the stage that has the most."""
    return np.maximum(sum(stage_parameters(cases, "first")), sum(stage_parameters(cases, "last")))


def shards(cases: Cases) -> tuple[Array, Array]:
    """Return over how many ranks the states of shared parameters and of experts are divided where they are.

    Experts have copies of their own number: all of them share the states, unless a smaller group was asked for.
    """
    split = cases.split
    copies = split.dp * split.cp * split.tp / (split.ep * split.expert_tp)
    whole = split.shard_ranks >= split.dp * split.cp
    return split.shard_ranks, np.maximum(np.where(whole, copies, np.minimum(split.shard_ranks, copies)), 1.0)


def updated_parameters(cases: Cases) -> Array:
    """Return the parameters that one rank's optimizer updates, on the stage that has the most."""
    wide, narrow = shards(cases)
    sharded = cases.split.zero_stage >= 1
    sizes = [
        shared / np.where(sharded, wide, 1.0) + experts / np.where(sharded, narrow, 1.0)
        for shared, experts in (stage_parameters(cases, stage) for stage in ("first", "last"))
    ]
    return np.maximum(*sizes)
