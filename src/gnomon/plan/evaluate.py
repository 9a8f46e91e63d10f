"""Compose the step from its layers and its states: the one set of formulas behind plan, fit and search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.arrays import Array
from gnomon.plan.cases import PER_OP, SOME, Cases
from gnomon.plan.communication import exposed_s, stage_send_s, window_s
from gnomon.plan.flops import step_tokens
from gnomon.plan.layer_work import LayerWork, layer_work
from gnomon.plan.memory import MemoryTerms, stage_memory
from gnomon.plan.price import PASSES, PricedOperator, total
from gnomon.plan.schedule import PipelineCost, StageTimes, pipeline_cost
from gnomon.plan.stages import DUALPIPE, FOLDED, STAGES, ZERO_BUBBLE
from gnomon.plan.state_work import StateWork, state_work
from gnomon.plan.stragglers import stragglers_s
from gnomon.spec import TIME_TERMS

LAYER_KINDS = ("tensor", "context", "expert", "shard", "offload")
STEP_KINDS = ("gradients", "weights", "states", "pipeline", "stragglers")
NONE = np.zeros(1)
TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Arrays over cases. `terms`, and `exposed` by kind of collective, are of the slowest pipeline stage.

    `windows` is the computation that can hide the collectives of gradients and weights once a step.
    `busiest` is its place in STAGES, `counts` how many layers, embeddings ("first") and heads ("last") it has. Times of
    `operators` are per layer and micro-batch, as their `place` says. `passes` are of one micro-batch on each kind of
    stage, `transfer_s` is what sending it to the next takes.
    """

    operators: tuple[PricedOperator, ...]
    terms: dict[str, Array]
    exposed: dict[str, Array]
    windows: dict[str, Array]
    step_time_s: Array
    busiest: NDArray[np.intp]
    counts: dict[str, Array]
    pipeline: PipelineCost
    passes: dict[str, StageTimes]
    transfer_s: Array
    memory: dict[str, MemoryTerms]
    memory_overhead: Array
    framework_bytes: Array
    model_flops: Array

    @property
    def stage_bytes(self) -> dict[str, Array]:
        """Peak bytes of a rank on each kind of stage."""
        return {
            stage: terms.tensors * (1.0 + self.memory_overhead) + self.framework_bytes
            for stage, terms in self.memory.items()
        }

    @property
    def peak_memory_bytes(self) -> Array:
        """Peak bytes of the rank that needs the most."""
        first, middle, last = (terms.tensors for terms in self.memory.values())
        largest = np.maximum(np.maximum(first, middle), last)
        return np.asarray(largest * (1.0 + self.memory_overhead) + self.framework_bytes)


class LayerTimes(NamedTuple):
    """Seconds of one layer and micro-batch with what it waits for and computes again; `exposed` by collective."""

    passes: dict[str, Array]
    exposed: dict[str, Array]
    recompute_s: Array
    host: Array
    host_backward: Array
    stalls: Array


class StageWork(NamedTuple):
    """One pipeline stage and micro-batch: layers, whether it has embedding and head, seconds by pass, launches.

    Multi-token-prediction modules count as layers of the stage with the head.
    """

    layers: Array
    has_first: Array
    has_last: Array
    passes: dict[str, Array]
    host: Array
    host_backward: Array
    stalls: Array
    device_s: Array
    idle_s: Array


def evaluate(cases: Cases) -> Evaluation:
    """Return time and memory of all cases."""
    return compose(cases, layer_work(cases), state_work(cases))


def compose(cases: Cases, work: LayerWork, state: StateWork) -> Evaluation:
    """Return time and memory of all cases from the costs of their layers and states."""
    layer = _layer_times(cases, work, state)
    stages = [_stage_work(cases, work, state, layer, stage) for stage in STAGES]
    split, transfer_s = cases.split, stage_send_s(cases)
    first, middle, last = (_stage_times(stage) for stage in stages)
    pipeline = pipeline_cost(split.schedule, split.pp, split.vpp, cases.accumulation, first, middle, last, transfer_s)
    pipeline = _from_step_to_step(cases, pipeline)
    ranks = _ranks(cases, stages)
    busiest, slowest_s = _slowest(cases, ranks)
    slow = _pick(busiest, ranks)
    idle_s = _step_idle_s(cases, work, state, slow)
    windows = _windows(cases, state, slow, idle_s)
    layers = cases.accumulation * slow.layers
    exposed = {
        **{kind: layers * layer.exposed[kind] for kind in LAYER_KINDS},
        **_step_exposed(cases, state, windows),
        "pipeline": pipeline.send_s,
        "stragglers": stragglers_s(cases, pipeline.total_s - pipeline.send_s),
    }
    terms = _terms(cases, work, state, layer, slow, exposed, idle_s)
    bubble = np.maximum(pipeline.total_s - cases.accumulation * slowest_s - pipeline.send_s, 0.0)
    terms["bubble_s"] = np.where(cases.split.pp > 1, bubble, 0.0)
    return Evaluation(
        operators=(*work.operators, *state.operators),
        terms=terms,
        exposed=exposed,
        windows=windows,
        step_time_s=total(terms.values()),
        busiest=busiest,
        counts={"layer": slow.layers, "first": slow.has_first, "last": slow.has_last},
        pipeline=pipeline,
        passes=dict(zip(STAGES, (first, middle, last), strict=True)),
        transfer_s=transfer_s,
        memory=stage_memory(cases, work.bytes, state.bytes),
        memory_overhead=cases.storage.memory_overhead,
        framework_bytes=cases.storage.framework_bytes,
        model_flops=step_tokens(cases) * work.token_flops,
    )


def _from_step_to_step(cases: Cases, pipeline: PipelineCost) -> PipelineCost:
    """Return the pipeline of steps in whose updates ranks do not wait for each other, where the software has that."""
    apart = (cases.storage.post_validates > 0) & np.isin(cases.split.schedule, ZERO_BUBBLE)
    if not np.any(apart):
        return pipeline
    total_s = np.where(apart, pipeline.unsynchronised_s, pipeline.total_s)
    return replace(pipeline, total_s=total_s, bubble_s=pipeline.bubble_s - (pipeline.total_s - total_s))


def _layer_times(cases: Cases, work: LayerWork, state: StateWork) -> LayerTimes:
    """Add to one layer what it waits for its collectives, and what it computes again."""
    split, storage, layer = cases.split, cases.storage, work.layer
    forward, backward, weight = (layer.passes[name] for name in PASSES)
    attention = layer.attention
    launched_again = split.recompute_share * (split.recompute == 2)
    recompute = launched_again * layer.repeated + split.recompute_share * (split.recompute == 1) * attention
    if np.any(split.recompute >= PER_OP):
        some = split.recompute_share * ((split.recompute == SOME) + 0.5 * (split.recompute == PER_OP))
        recompute, launched_again = recompute + some * (layer.repeated - attention), launched_again + some
    ahead, behind = (_waits(cases, work.waits[name]) for name in ("forward", "backward"))
    stalls_ahead, stalls = layer.stalls - layer.stalls_backward, layer.stalls_backward
    stalls = stalls + launched_again * stalls_ahead
    gather, both = state.shard_gather_s, state.shard_gather_s + state.shard_scatter_s
    repeats = repeated_traffic(cases, work.repeated_sums)
    hidden_behind = window_s(cases, forward, stalls_ahead)
    forward_waits = {**ahead, "shard": exposed_s(gather, NONE, hidden_behind, storage.overlap_shard)}
    backward_waits = {kind: behind[kind] + repeats[kind] * ahead[kind] for kind in repeats}
    # what hides behind both passes of the backward is waited for in each by its share of their computation; weights of
    # the next layer come while one is computed again
    computed = backward + recompute
    behind_it = computed + weight
    late = exposed_s(both, NONE, window_s(cases, behind_it, stalls), storage.overlap_shard)
    late_input = late * (computed / np.maximum(behind_it, TINY))
    passes = {
        "forward": forward + total(forward_waits.values()),
        "input": computed + total(backward_waits.values()) + late_input,
        "weight": weight + (late - late_input),
    }
    moved = _moved_s(cases, work, forward, backward, weight)
    if np.any(moved):
        whole = np.maximum(forward + backward + weight, TINY)
        for name, one in zip(PASSES, (forward, backward, weight), strict=True):
            passes[name] = passes[name] + moved * (one / whole)
    host_again = launched_again * (layer.host - layer.host_backward)
    launches = work.collectives * (2.0 + repeats["expert"]) + 6.0 * (gather > 0)
    return LayerTimes(
        passes=passes,
        exposed={
            **{kind: wait + forward_waits[kind] for kind, wait in backward_waits.items()},
            "shard": late + forward_waits["shard"],
            "offload": moved,
        },
        recompute_s=recompute,
        host=layer.host + host_again + launches * storage.collective_dispatch_s,
        host_backward=layer.host_backward + host_again,
        stalls=stalls_ahead + stalls,
    )


def repeated_traffic(cases: Cases, sums: Array) -> dict[str, Array]:
    """Return the part of the forward's traffic of each kind that recomputation repeats: what is computed again needs
    its sums again (`sums` of them), its attention the keys of others, and its experts their tokens."""
    split = cases.split
    again = split.recompute_share * ((split.recompute == 2) | (split.recompute == SOME))
    attended = split.recompute_share * ((split.recompute == 1) | (split.recompute == 2))
    return {"tensor": again * sums, "context": attended, "expert": again}


def _moved_s(cases: Cases, work: LayerWork, *passes: Array) -> Array:
    """Return what a layer waits for activations on their way to the host and back, which all its passes hide."""
    share = cases.split.offload_activations
    if not np.any(share):
        return NONE
    kept = work.bytes.whole(cases) * share
    return exposed_s(2.0 * kept / cases.host_bandwidth, NONE, total(passes), np.ones(1))


def _waits(cases: Cases, waits: dict[str, Array]) -> dict[str, Array]:
    """Return what a layer waits for each kind of collective; DualPipe computes one of two passes while the other sends
    its tokens (DeepSeek-V3, arXiv 2412.19437, section 3.2.1)."""
    found = {kind: wait for kind, wait in waits.items() if kind != "paired"}
    return {**found, "expert": np.where(cases.split.schedule == DUALPIPE, waits["paired"], waits["expert"])}


def _stage_work(cases: Cases, work: LayerWork, state: StateWork, layer: LayerTimes, stage: str) -> StageWork:
    """Return the work of one stage: its layers, and embedding or head where it has them."""
    one = (cases.split.pp == 1) * 1.0
    first = np.ones(1) if stage == "first" else one
    last = np.ones(1) if stage == "last" else one
    layers = getattr(state.layers, stage) + (0.0 if stage == "middle" else last * cases.model.mtp_layers)

    def sum_(of_layer: Array, of_first: Array, of_last: Array) -> Array:
        whole = layers * of_layer
        if stage == "middle":  # where there is one stage alone, the first is it
            return np.asarray(whole)
        return np.asarray(whole + (first * of_first + last * of_last))

    passes = {name: sum_(layer.passes[name], work.first.passes[name], work.last.passes[name]) for name in PASSES}
    host = sum_(layer.host, work.first.host, work.last.host)
    stalls = sum_(layer.stalls, work.first.stalls, work.last.stalls)
    device = total(passes.values())
    return StageWork(
        layers=layers,
        has_first=first,
        has_last=last,
        passes=passes,
        host=host,
        host_backward=sum_(layer.host_backward, work.first.host_backward, work.last.host_backward),
        stalls=stalls,
        device_s=device,
        idle_s=_idle_s(cases, host + work.data_s, host, stalls, device),
    )


def _idle_s(cases: Cases, busy_host: Array, launches: Array, stalls: Array, device: Array) -> Array:
    """Return the launch time that shows: all of it on a synchronous device.

    Else what the host, which also makes the batches, needs longer than the device: over the whole micro-batch where
    it runs ahead, operator by operator where something makes it wait (a read of a random state, a blocking send).
    """
    storage = cases.storage
    ahead = np.maximum(busy_host - device, 0.0)
    waiting = ahead + (1.0 - storage.run_ahead) * np.maximum(stalls - ahead, 0.0)
    asynchronous = storage.asynchronous > 0
    return waiting if np.all(asynchronous) else np.where(asynchronous, waiting, launches)


def _stage_times(stage: StageWork) -> StageTimes:
    """Return the seconds of the passes, each longer by its share of the launches that show."""
    stretch = 1.0 + stage.idle_s / np.maximum(stage.device_s, TINY)
    forward, backward, weight = (stage.passes[name] * stretch for name in PASSES)
    return StageTimes(forward=forward, backward_input=backward, backward_weight=weight)


def _ranks(cases: Cases, stages: list[StageWork]) -> list[StageWork]:
    """Return what the first rank, a middle one and the last compute for one micro-batch on average.

    In DualPipe half of the micro-batches pass a rank in its own stage, half in the one that lies as far from the other
    end. Schedules that fold the model give the first rank both ends, and the last none.
    """
    split = cases.split
    paired = (split.schedule == DUALPIPE) & (split.pp > 1)
    folded = np.isin(split.schedule, FOLDED) & (split.pp > 1)
    if not np.any(paired | folded):
        return stages
    middle = stages[1]

    def half(head: Array, body: Array, tail: Array) -> Array:
        return (head + tail) / 2.0

    def both(head: Array, body: Array, tail: Array) -> Array:
        return head + tail - body

    def start(head: Array, body: Array, tail: Array) -> Array:
        return np.where(paired, half(head, body, tail), np.where(folded, both(head, body, tail), head))

    def end(head: Array, body: Array, tail: Array) -> Array:
        return np.where(paired, half(head, body, tail), np.where(folded, body, tail))

    def rank(mix: Callable[[Array, Array, Array], Array]) -> StageWork:
        names = [name for name in StageWork._fields if name != "passes"]
        return StageWork(
            passes={name: mix(*(stage.passes[name] for stage in stages)) for name in PASSES},
            **{name: mix(*(getattr(stage, name) for stage in stages)) for name in names},
        )

    if np.all(folded):  # a search asks for one schedule at a time
        return [rank(both), middle, middle]
    if np.all(paired):
        return [one := rank(half), middle, one]
    return [rank(start), middle, rank(end)]


def _slowest(cases: Cases, ranks: list[StageWork]) -> tuple[NDArray[np.intp], Array]:
    """Return (place of the slowest in STAGES, its seconds per micro-batch); the first of equals.

    Two ranks have none between them.
    """
    first, middle, last = np.broadcast_arrays(*(rank.device_s + rank.idle_s for rank in ranks))
    middle = np.where(cases.split.pp == 2, first, middle)
    slow = np.where(middle > first, 1, 0)
    slowest = np.maximum(first, middle)
    return np.where(last > slowest, 2, slow), np.maximum(slowest, last)


def _pick(busiest: NDArray[np.intp], stages: list[StageWork]) -> StageWork:
    """Return the work of the slowest stage of each case."""

    is_first, is_middle = busiest == 0, busiest == 1

    def pick(values: list[Array]) -> Array:
        first, middle, last = values
        return np.where(is_first, first, np.where(is_middle, middle, last))

    fields = {name: pick([getattr(s, name) for s in stages]) for name in StageWork._fields if name != "passes"}
    return StageWork(passes={name: pick([s.passes[name] for s in stages]) for name in PASSES}, **fields)


def _terms(
    cases: Cases,
    work: LayerWork,
    state: StateWork,
    layer: LayerTimes,
    slow: StageWork,
    exposed: dict[str, Array],
    idle_s: Array,
) -> dict[str, Array]:
    """Return the seconds of one step of the slowest stage by term, without the bubble."""
    micro_batches, storage = cases.accumulation, cases.storage
    layers = micro_batches * slow.layers
    terms = dict.fromkeys(TIME_TERMS, NONE)
    for part, count in (
        (work.layer, layers),
        (work.first, micro_batches * slow.has_first),
        (work.last, micro_batches * slow.has_last),
        (state.accumulation, micro_batches - 1.0),
        (state.step, np.ones(1)),
    ):
        for term, seconds in part.terms.items():
            terms[term] = count * seconds + terms[term] if terms[term] is not NONE else count * seconds
    terms["recompute_s"] = layers * layer.recompute_s
    terms["communication_s"] = total(exposed.values())
    terms["idle_s"] = storage.step_overhead_s + idle_s
    terms["data_s"] = np.where(storage.asynchronous > 0, 0.0, micro_batches * work.data_s)
    return terms


def _step_idle_s(cases: Cases, work: LayerWork, state: StateWork, slow: StageWork) -> Array:
    """Return the launch time of a whole step that shows; the optimizer's work hides launches too."""
    micro_batches = cases.accumulation
    updates = [state.step, state.accumulation]
    host = micro_batches * slow.host + state.step.host + (micro_batches - 1.0) * state.accumulation.host
    # the host's time for the parameter tensors: clipping, optimizer, zeroing
    host = host + cases.storage.dispatch_optimizer_s * cases.model.parameter_tensors
    step, more = (total([part.passes[name] for name in PASSES]) for part in updates)
    device = micro_batches * slow.device_s + step + (micro_batches - 1.0) * more
    return _idle_s(cases, host + micro_batches * work.data_s, host, micro_batches * slow.stalls, device)


def _windows(cases: Cases, state: StateWork, slow: StageWork, idle_s: Array) -> dict[str, Array]:
    """Return the backward pass that can hide the reduction of gradients, the forward that can hide the gathering.

    On an asynchronous device launches last no longer than the device's work, but for their share of what shows of them
    in a step, `idle_s`.
    """
    more = (cases.accumulation - 1.0) / cases.accumulation
    asynchronous = cases.storage.asynchronous > 0
    whole = slow.device_s + more * total(state.accumulation.passes.values())

    def window(device: Array, launches: Array) -> Array:
        showing = idle_s / cases.accumulation * (device / np.maximum(whole, TINY))
        return device + (showing if np.all(asynchronous) else np.where(asynchronous, showing, launches))

    backward = window(
        slow.passes["input"] + slow.passes["weight"] + more * state.accumulation.passes["input"],
        slow.host_backward + more * state.accumulation.host_backward,
    )
    forward = window(slow.passes["forward"], slow.host - slow.host_backward)
    each = np.where(cases.split.zero_stage == 2, cases.accumulation, 1.0)
    return {
        "gradients": backward * each,
        "weights": forward * np.where(cases.storage.gathers_each_pass > 0, each, 1.0),
    }


def _step_exposed(cases: Cases, state: StateWork, windows: dict[str, Array]) -> dict[str, Array]:
    """Return what the step waits for the reduction of gradients, the gathering of weights, and offloaded states."""
    overlap = cases.overlap_data
    return {
        "gradients": exposed_s(state.reduction_s, state.last_bucket_s, windows["gradients"], overlap),
        "weights": exposed_s(state.gather_s, NONE, windows["weights"], overlap),
        "states": 2.0 * cases.split.offload_optimizer * state.optimizer_bytes / cases.host_bandwidth,
    }
