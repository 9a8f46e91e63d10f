"""How many layers each pipeline stage has, and how many parameters its rank holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.spec.layout import SCHEDULES

STAGES = ("first", "middle", "last")
FOLDED = tuple(SCHEDULES.index(name) for name in ("zb-v", "v-half", "v-min"))
ZERO_BUBBLE = (SCHEDULES.index("zb-h1"), SCHEDULES.index("zb-h2"), *FOLDED)
DUALPIPE = SCHEDULES.index("dualpipe")
# embedding and head, which may stand in the place of a layer each (Llama 3, arXiv 2407.21783, section 3.3.2)
END_LAYERS = 2
_KEPT = 4  # problems whose stages are kept: one evaluation asks for them a dozen times


@dataclass(frozen=True, kw_only=True)
class StageLayers:
    """Layers on the first, on each of the others, and on the last stage; all are the whole model when pp is 1."""

    first: Array
    middle: Array
    last: Array


def whole_chunks(layers: int, chunks: ArrayLike) -> NDArray[np.bool_]:
    """Return whether all chunks have as many layers, embedding and head counting as one of theirs or as none."""
    return np.asarray(np.any([(layers + more) % np.asarray(chunks) == 0 for more in range(END_LAYERS + 1)], axis=0))


@lru_cache(maxsize=_KEPT)
def stage_layers(cases: Cases) -> StageLayers:
    """Return the layers per stage: equal where they divide; else the first and the last, which also hold embedding
    and head, have fewer, by one chunk at most. Where these cannot make up for it, other stages are short too: `middle`
    is then the largest. Numbers that the layout gives are kept, and the other stages share what is left."""
    split, total = cases.split, cases.model.num_layers
    pp = split.pp
    middle = np.ceil(total / pp)
    short = pp * middle - total
    chunk = middle / _chunks(cases)
    elsewhere = np.ceil(short / 2.0) > chunk
    first = np.where(elsewhere, np.floor(total / pp), middle - np.floor(short / 2.0))
    last = np.where(elsewhere, np.floor(total / pp), middle - np.ceil(short / 2.0))
    starts, ends = split.first_stage_layers >= 0, split.last_stage_layers >= 0
    if np.any(starts | ends):
        stated = np.where(starts, split.first_stage_layers, 0.0) + np.where(ends, split.last_stage_layers, 0.0)
        others = (total - stated) / np.maximum(pp - starts - ends, 1.0)
        middle = np.where(starts | ends, others, middle)
        first = np.where(starts, split.first_stage_layers, np.where(ends, others, first))
        last = np.where(ends, split.last_stage_layers, np.where(starts, others, last))
    one = pp == 1
    return StageLayers(
        first=np.where(one, total, first), middle=np.where(one, total, middle), last=np.where(one, total, last)
    )


def _chunks(cases: Cases) -> Array:
    """Return into how many chunks the layers of a rank fall: two where the model is folded."""
    return np.where(np.isin(cases.split.schedule, FOLDED), 2.0, cases.split.vpp)


def largest_stage(cases: Cases, of_stage: Callable[[str], Array]) -> Array:
    """Return the largest value of the stages that the pipeline has; two stages have none between them."""
    ends = np.maximum(of_stage("first"), of_stage("last"))
    return np.where(cases.split.pp > 2, np.maximum(ends, of_stage("middle")), ends)


def weight_copies(cases: Cases) -> Array:
    """Return on how many pipeline ranks each weight lies: on two in DualPipe, which feeds the pipeline at both ends."""
    return np.where((cases.split.schedule == DUALPIPE) & (cases.split.pp > 1), 2.0, 1.0)


def held_layers(cases: Cases, stage: str) -> Array:
    """Return the layers of the rank of a stage; a rank of DualPipe also has those as far from the other end."""
    counts = stage_layers(cases)
    mirrored = {"first": counts.last, "middle": counts.middle, "last": counts.first}[stage]
    return np.asarray(getattr(counts, stage) + (weight_copies(cases) - 1.0) * mirrored)


def has_embedding(cases: Cases, stage: str) -> NDArray[np.bool_]:
    """Return whether the rank of a stage holds the embedding."""
    split = cases.split
    at_both_ends = (split.schedule == DUALPIPE) & (stage == "last")
    return np.asarray((split.pp == 1) | (stage == "first") | at_both_ends)


def has_head(cases: Cases, stage: str) -> NDArray[np.bool_]:
    """Return whether the rank of a stage holds the head; schedules that fold the model put it on the first."""
    split = cases.split
    folded = np.isin(split.schedule, FOLDED)
    at_start = (folded | (split.schedule == DUALPIPE)) & (stage == "first")
    return np.asarray((split.pp == 1) | at_start | (~folded & (stage == "last")))


@lru_cache(maxsize=3 * _KEPT)
def stage_parameters(cases: Cases, stage: str) -> tuple[Array, Array]:
    """Return (parameters that every data-parallel rank has, parameters of experts) of the rank of a stage.

    Multi-token-prediction modules lie beside the head (DeepSeek-V3, arXiv 2412.19437, section 2.2). A rank of DualPipe
    holds its own stage and the one that lies as far from the other end.
    """
    model, split = cases.model, cases.split
    layers = held_layers(cases, stage)
    first, last = has_embedding(cases, stage), has_head(cases, stage)
    again = model.tied * model.vocab * model.hidden * ~first  # a tied head without the embedding beside it
    # a prediction module looks its tokens up beside the head
    again = np.maximum(again, (model.mtp_layers > 0) * (1.0 - model.tied) * model.vocab * model.hidden * ~first)
    ends = first * model.embedding_parameters + last * (model.head_parameters + again + model.mtp_parameters)
    dense = _dense_layers(cases, stage, layers)
    sparse = layers - dense
    feed_forward = dense * model.dense_parameters + sparse * model.moe_parameters
    shared = (layers * model.layer_parameters + feed_forward + ends) / split.tp
    experts = sparse * model.expert_parameters + last * model.mtp_expert_parameters
    return shared, experts / (split.ep * split.expert_tp)


def _dense_layers(cases: Cases, stage: str, layers: Array) -> Array:
    """Return how many of the layers of a stage have no experts.

    The model's leading ones lie in the first chunk of the first rank as far as it can hold them; the others are spread
    evenly over the rest of the model.
    """
    model, split = cases.model, cases.split
    if not np.any(model.moe_layers):
        return layers
    chunk = np.where(split.pp == 1, model.num_layers, stage_layers(cases).first / _chunks(cases))
    after = np.maximum(model.num_layers - model.leading_dense, 1.0)
    density = (model.dense_layers - model.leading_dense) / after
    leading = np.minimum(model.leading_dense, chunk)
    in_chunk = leading + density * (chunk - leading)
    elsewhere = (model.dense_layers - in_chunk) / np.maximum(model.num_layers - chunk, 1.0)
    starts = (split.pp == 1) | (stage == "first") | ((split.schedule == DUALPIPE) & (stage == "last"))
    return np.asarray(np.where(starts, in_chunk + elsewhere * (layers - chunk), elsewhere * layers))


def held_parameters(cases: Cases) -> Array:
    """Return the parameters whose gradients one rank accumulates, on the stage that has the most."""
    return largest_stage(cases, lambda stage: np.asarray(np.add(*stage_parameters(cases, stage))))


def shards(cases: Cases) -> tuple[Array, Array]:
    """Return over how many ranks the states of shared parameters and of experts are divided where they are.

    Experts have copies of their own number: all of them share the states, unless a smaller group was asked for. The
    copies that DualPipe makes share them too.
    """
    split = cases.split
    copies = split.dp * split.cp * split.tp / (split.ep * split.expert_tp)
    whole = split.shard_ranks >= split.dp * split.cp
    experts = np.maximum(np.where(whole, copies, np.minimum(split.shard_ranks, copies)), 1.0)
    return split.shard_ranks * weight_copies(cases), experts * weight_copies(cases)


def updated_parameters(cases: Cases) -> Array:
    """Return the parameters that one rank's optimizer updates, on the stage that has the most."""
    wide, narrow = shards(cases)
    sharded = cases.split.zero_stage >= 1

    def updated(stage: str) -> Array:
        shared, experts = stage_parameters(cases, stage)
        return shared / np.where(sharded, wide, 1.0) + experts / np.where(sharded, narrow, 1.0)

    return largest_stage(cases, updated)
