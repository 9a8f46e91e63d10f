"""Memory at the peak of a training step on each kind of pipeline stage, from the tensors that autograd keeps.

Two instants can be the peak of a stage: the start of a backward pass, when the most activations are alive, and its
end, when every gradient is. In between both change linearly with the layer, so one of the ends is the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.arrays import Array
from gnomon.plan.cases import PER_OP, SOME, Cases, product_ways
from gnomon.plan.halves import average, halves, largest
from gnomon.plan.price import total
from gnomon.plan.schedule import in_flight
from gnomon.plan.sizes import held_copies
from gnomon.plan.stages import (
    STAGES,
    has_head,
    held_layers,
    shards,
    stage_layers,
    stage_parameters,
    weight_copies,
)
from gnomon.plan.traffic import FP32_BYTES
from gnomon.spec.layout import SCHEDULES

GPIPE = SCHEDULES.index("gpipe")

LAYER_INPUT = "layer input"
ATTENDED = ("attention output", "softmax", "attention dropout")  # tensors that attention alone can make again


@dataclass(frozen=True, kw_only=True)
class MemoryTerms:
    """Bytes per rank, arrays over cases; `activations` is what the peak holds beyond the other terms."""

    weights: Array
    gradients: Array
    optimizer: Array
    activations: Array
    communication: Array

    @property
    def tensors(self) -> Array:
        """Bytes of all tensors at the peak."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.communication


@dataclass(frozen=True, kw_only=True)
class LayerBytes:
    """Bytes of one average layer and micro-batch: what it keeps from forward to backward without recomputation, with
    its scores computed again, and with every second product; what attention alone can make again; its input; what the
    largest layer holds while it is computed again as a whole; the largest transient of a backward; what the head holds.
    """

    kept: Array
    kept_selective: Array
    kept_per_op: Array
    attended: Array
    input: Array
    again: Array
    workspace: Array
    head: Array

    def whole(self, cases: Cases) -> Array:
        """Return what a layer that is not computed again as a whole keeps."""
        mode, share = cases.split.recompute, cases.split.recompute_share
        kept = np.where(mode == 1, share * self.kept_selective + (1.0 - share) * self.kept, self.kept)
        if not np.any(mode == PER_OP):
            return kept
        return np.where(mode == PER_OP, share * self.kept_per_op + (1.0 - share) * self.kept, kept)


@dataclass(frozen=True, kw_only=True)
class StateBytes:
    """Bytes of the parameters of one rank on one stage, and the number of its `layers`.

    `optimizer` is before any of it goes to the host; `buffers` are gathered weights, `casts` 16-bit copies.
    """

    layers: Array
    weights: Array
    gradients: Array
    optimizer: Array
    buffers: Array
    casts: Array


def stage_memory(cases: Cases, layer: LayerBytes, states: dict[str, StateBytes]) -> dict[str, MemoryTerms]:
    """Return the peak of one rank on the first, a middle and the last pipeline stage."""
    kept = _kept_bytes(cases, layer)
    found = {stage: _stage_memory(cases, layer, kept, states[stage], stage) for stage in STAGES}
    if np.any(cases.split.pp == 2):  # two stages have none between them
        found["middle"] = _chosen(cases.split.pp == 2, found["first"], found["middle"])
    return found


def _chosen(condition: NDArray[np.bool_], one: MemoryTerms, other: MemoryTerms) -> MemoryTerms:
    names = MemoryTerms.__dataclass_fields__
    return MemoryTerms(**{name: np.where(condition, getattr(one, name), getattr(other, name)) for name in names})


def training_memory(cases: Cases) -> MemoryTerms:
    """Return the peak of the rank that needs the most."""
    states = {stage: state_bytes(cases, stage) for stage in STAGES}
    first, *others = stage_memory(cases, layer_bytes(cases), states).values()
    for other in others:
        first = _chosen(other.tensors > first.tensors, other, first)
    return first


def layer_bytes(cases: Cases) -> LayerBytes:
    """Return the bytes of one micro-batch."""
    whole, selective = (_with_mode(cases, recompute) for recompute in (0, 1))
    return LayerBytes(
        kept=layer_activations_bytes(whole),
        kept_selective=layer_activations_bytes(selective),
        kept_per_op=average(whole, lambda half: total(_per_op_tensors(half).values())),
        attended=average(whole, lambda half: total(_half_tensors(half)[name] for name in ATTENDED)),
        input=layer_input_bytes(cases),
        again=largest(selective, lambda half: total(_half_tensors(half).values()) + _layer_workspace(half)),
        workspace=largest(cases, _layer_workspace),
        head=_head_bytes(cases),
    )


def state_bytes(cases: Cases, stage: str) -> StateBytes:
    """Return the bytes of a rank's parameters on one stage."""
    split, storage = cases.split, cases.storage
    shared, experts = stage_parameters(cases, stage)
    ways, expert_ways = shards(cases)

    def per_rank(from_stage: int) -> Array:
        sharded = split.zero_stage >= from_stage
        return shared / np.where(sharded, ways, 1.0) + experts / np.where(sharded, expert_ways, 1.0)

    own = storage.sharded_masters > 0
    gathered = ((split.zero_stage == 1) | (split.zero_stage == 2)) * (shared + experts) * storage.compute_bytes
    return StateBytes(
        layers=getattr(stage_layers(cases), stage),
        weights=np.where(own, per_rank(1) * FP32_BYTES + gathered, per_rank(3) * storage.weight_bytes),
        gradients=np.where(own, per_rank(1) * FP32_BYTES, per_rank(2) * storage.gradient_bytes),
        optimizer=per_rank(1) * (storage.master_bytes - FP32_BYTES * own),
        buffers=_communication_buffers(cases, shared + np.where(expert_ways > 1, experts, 0.0), stage),
        casts=cast_weights_bytes(cases, stage),
    )


class KeptBytes(NamedTuple):
    """Bytes of one micro-batch in an average layer: from forward to backward, and while it is computed again."""

    always: Array
    again: Array


def _kept_bytes(cases: Cases, layer: LayerBytes) -> KeptBytes:
    share, whole = _recomputed_share(cases), layer.whole(cases)
    left = layer.input + layer.attended * (cases.split.recompute == SOME)
    return KeptBytes(
        always=((1.0 - share) * whole + share * left) * (1.0 - cases.split.offload_activations),
        again=np.where((share > 0) | (cases.split.recompute == PER_OP), layer.again, 0.0),
    )


def _recomputed_share(cases: Cases) -> Array:
    """Return the part of what a layer keeps that is made again: of some products, that of their weights."""
    mode = cases.split.recompute
    return np.where((mode == 2) | (mode == SOME), cases.split.recompute_share, 0.0)


def _stage_memory(cases: Cases, layer: LayerBytes, kept: KeptBytes, states: StateBytes, stage: str) -> MemoryTerms:
    held = _holds_gradients(cases)
    forward_end = _activations_bytes(cases, layer, kept, states, stage) + np.where(held, states.gradients, 0.0)
    backward_end = states.gradients if np.all(held) else states.gradients + kept.again
    copied = _main_gradients(cases, states)
    if np.any(copied):
        backward_end = np.maximum(backward_end, states.gradients + copied)
    return MemoryTerms(
        weights=states.weights,
        gradients=states.gradients,
        optimizer=states.optimizer * (1.0 - cases.split.offload_optimizer),
        activations=np.maximum(forward_end, backward_end) - states.gradients,
        communication=states.buffers,
    )


def _main_gradients(cases: Cases, states: StateBytes) -> Array:
    """Return the bytes of the fp32 copies of 16-bit gradients that an update of fp32 masters makes.

    20 bytes per parameter in Megatron-LM with fp16 gradients (docs of its distributed optimizer).
    """
    storage = cases.storage
    copied = (storage.masters > 0) & (storage.gradient_bytes < FP32_BYTES) & (storage.sharded_masters == 0)
    if not np.any(copied):
        return np.zeros(1)
    return np.where(copied, states.optimizer / storage.master_bytes * FP32_BYTES, 0.0)


def _holds_gradients(cases: Cases) -> NDArray[np.bool_]:
    """Return whether the gradients exist before backward: all do, unless one rank makes them anew each step."""
    made_anew = (cases.storage.sharded_masters > 0) | (cases.storage.weight_bytes >= FP32_BYTES) & (cases.split.dp == 1)
    return np.asarray((cases.accumulation > 1) | ~made_anew)


def _communication_buffers(cases: Cases, parameters: Array, stage: str) -> Array:
    """Return the weights that are gathered at one time: of two layers when they are sharded (the next is fetched).

    parameters: those of a stage that several ranks share
    """
    split, model = cases.split, cases.model
    held = held_layers(cases, stage) + has_head(cases, stage) * model.mtp_layers
    layers = np.maximum(held, 1.0)
    gathered = 2.0 * parameters / layers * cases.storage.compute_bytes
    return np.where((split.zero_stage == 3) & (model.num_layers > 1) & (split.shard_ranks > 1), gathered, 0.0)


def _activations_bytes(cases: Cases, layer: LayerBytes, kept: KeptBytes, states: StateBytes, stage: str) -> Array:
    """Return the bytes of everything that autograd holds at the start of a backward pass on this stage."""
    split, head = cases.split, has_head(cases, stage)
    index = {"first": np.zeros_like(split.pp), "middle": np.minimum(1.0, split.pp - 1.0), "last": split.pp - 1.0}[stage]
    alive = in_flight(split.schedule, split.pp, split.vpp, cases.accumulation, index)
    end = np.where(head, layer.head, layer.workspace)
    # a prediction module runs with the head, which a backward pass follows at once unless all forwards come first
    modules = np.where(split.schedule == GPIPE, alive, 1.0) * head * cases.model.mtp_layers
    held = (_layers_alive(cases, alive, states, stage) + modules) * kept.always
    held = held + np.maximum(end, kept.again)  # the head is done with when a layer comes again
    if not np.any(cases.storage.autocast):
        return held
    share = _recomputed_share(cases)  # a layer that is computed again makes its 16-bit copies again
    return held + states.casts * (1.0 - share + share / np.maximum(states.layers, 1.0))


def _layers_alive(cases: Cases, alive: Array, states: StateBytes, stage: str) -> Array:
    """Return the layers of a rank times the micro-batches alive in each.

    The first and the last rank of DualPipe hold both ends: as many micro-batches of the first stage as there are
    stages, and one of the last.
    """
    paired = (weight_copies(cases) > 1) & (stage != "middle")
    if not np.any(paired):
        return alive * states.layers
    ends = stage_layers(cases)
    return np.where(paired, (alive - 1.0) * ends.first + ends.last, alive * states.layers)


def layer_input_bytes(cases: Cases) -> Array:
    """Return the bytes of an average layer's input, all that full recomputation keeps."""
    return average(cases, lambda one: one.stream_tokens * one.model.hidden * one.storage.stream_bytes)


def layer_activations_bytes(cases: Cases) -> Array:
    """Return the bytes that one average layer keeps from forward to backward for one micro-batch on one rank, of which
    scores alone are computed again where the layout says so.

    With 16-bit storage, dropout and a GPT this is  s b h (10 + 24 / t + 5 a s / h t)  bytes, or all of it over t with
    sequence parallelism (Korthikanti et al., arXiv 2205.05198, equations 1 to 4). Products keep their inputs, norms
    and residuals the stream; with 8-bit operands the kept inputs of products are 8-bit copies.
    """
    return average(cases, lambda half: total(_half_tensors(half).values()))


def _per_op_tensors(half: Cases) -> dict[str, Array]:
    """Return what a layer keeps of which every second product is computed again, with the outputs that are kept:
    queries and values, one of up and gate, the feed-forward's; and attention's, of which nothing is computed again."""
    kept, c, tokens = _half_tensors(half), half.storage.compute_bytes, half.stream_tokens * half.model.hidden
    return {
        LAYER_INPUT: tokens * half.storage.stream_bytes,
        **{name: kept[name] for name in ("queries", "values", *ATTENDED)},
        "up projection": _width(half) * c,
        "feed-forward output": tokens * c,
    }


def activation_tensors(cases: Cases) -> dict[str, Array]:
    """Return {tensor: bytes} that one average layer keeps on its device, from forward to backward, for one micro-batch.

    What is computed again or lies in the host's memory is not among them. The mean over layers that are computed
    again and layers that are not, each tensor mixed as their sum is for the memory of a stage.
    """
    plain, selective = (_average_tensors(_with_mode(cases, mode), _half_tensors) for mode in (0, 1))
    per_op = _average_tensors(_with_mode(cases, 0), _per_op_tensors)
    zero = np.zeros(1)

    def kept(name: str) -> Array:
        one = LayerBytes(
            kept=plain.get(name, zero),
            kept_selective=selective.get(name, zero),
            kept_per_op=per_op.get(name, zero),
            attended=plain[name] if name in ATTENDED else zero,
            input=layer_input_bytes(cases) if name == LAYER_INPUT else zero,
            again=zero,
            workspace=zero,
            head=zero,
        )
        return _kept_bytes(cases, one).always

    return {name: kept(name) for name in (*plain, *(name for name in per_op if name not in plain))}


def _average_tensors(cases: Cases, tensors: Callable[[Cases], dict[str, Array]]) -> dict[str, Array]:
    """Return {tensor: bytes} of the mean over the layers of both halves."""
    found: dict[str, Array] = {}
    for half in halves(cases):
        for name, size in tensors(half.cases).items():
            found[name] = found.get(name, np.zeros(1)) + half.share * size
    return found


def _with_mode(cases: Cases, recompute: int) -> Cases:
    """Return the cases with another recomputation in all of them."""
    return replace(cases, split=replace(cases.split, recompute=np.full(1, float(recompute))))


def _half_tensors(cases: Cases) -> dict[str, Array]:
    """Return {tensor: bytes} of one layer of one half."""
    model, split, storage = cases.model, cases.split, cases.storage
    c, r, tp = storage.compute_bytes, storage.stream_bytes, split.tp
    stream, tokens = cases.stream_tokens, cases.tokens
    operand = np.minimum(storage.operand_bytes, c)
    stored = np.where(operand < c, operand, c)
    crossed = cases.crossed
    norms = model.norms_per_layer + crossed
    heads = cases.rank_queries + cases.rank_keys
    decomposed = (model.layernorm == 0) & (storage.fused_rmsnorm == 0)
    statistics = np.where(model.layernorm > 0, 4.0, 2.0) * FP32_BYTES
    keys = cases.seq_len + crossed * cases.encoder_seq_len
    scores = cases.micro_batch * model.heads / tp * cases.seq_len * keys / split.cp
    queried, read = tokens * (1.0 + crossed), tokens + crossed * cases.memory_tokens
    selective = (split.recompute >= 1) & (split.recompute < PER_OP)
    unfused = np.where(cases.flash > 0, 0.0, np.where(selective, 0.0, 1.0))
    routed_tokens, width = cases.routed_tokens * model.moe_layers / model.num_layers, _width(cases)
    gates = np.where(model.gated > 0, np.where(storage.fused > 0, 2.0, 3.0), 1.0)
    return {
        "residual stream": stream * norms * model.hidden * r,
        "norm statistics": stream * (statistics + decomposed * 2.0 * FP32_BYTES * model.hidden),
        "product inputs": stream * norms * model.hidden * stored,
        "latents": stream * model.latent * 2.0 * stored,
        "queries": queried * cases.rank_queries * c,
        "keys": read * cases.rank_keys * c,
        "values": read * cases.rank_values * c,
        "rotated queries and keys": tokens * model.rope * (1.0 - storage.fused) * heads * c,
        "normalised queries and keys": tokens
        * model.qk_norm
        * heads
        * (c + FP32_BYTES * storage.autocast + FP32_BYTES * decomposed),
        "attention output": queried * (cases.rank_attended * c + cases.flash * FP32_BYTES * model.heads / tp),
        "softmax": unfused * scores * c,
        "attention dropout": unfused * cases.dropout * scores * (c + 1.0),
        "up projection": width * gates * c,
        "activation": width * stored,
        "expert inputs": routed_tokens * model.hidden * (c + stored),
        "dropout masks": stream * cases.dropout * (2.0 + crossed) * model.hidden,
        # what is scaled and shifted is kept for the gradients of scale and gate
        "modulation": stream * model.conditioned * (4.0 - 2.0 * storage.fused) * model.hidden * c,
    }


def _width(cases: Cases) -> Array:
    """Return the elements between the two products of a feed-forward, of one gate, for one micro-batch on one rank."""
    model, split = cases.model, cases.split
    dense = (model.ffn * model.dense_layers + model.shared_ffn * model.moe_layers) / model.num_layers / split.tp
    routed = cases.routed_tokens * model.moe_layers / model.num_layers
    return np.asarray(dense * cases.tokens + routed * model.expert_ffn / split.expert_tp)


def _head_bytes(cases: Cases) -> Array:
    """Return what the last stage holds when the loss has been computed, and the larger transient after it."""
    model, storage = cases.model, cases.storage
    c, r = storage.compute_bytes, storage.stream_bytes
    final = cases.stream_tokens * model.hidden * (r + c)
    logits = cases.tokens * cases.rank_vocab
    loss = logits * FP32_BYTES
    gradient = logits * (FP32_BYTES + c * (c < FP32_BYTES))
    return (1.0 + model.mtp_layers) * (final + loss) + np.maximum(gradient, _layer_workspace(cases) - loss)


def _layer_workspace(cases: Cases) -> Array:
    """Return the gradients alive together in the feed-forward's backward, less the tensors released before them."""
    model, storage = cases.model, cases.storage
    gates = 1.0 + model.gated
    width = cases.tokens / cases.split.tp * np.where(model.dense_layers > 0, model.ffn, model.shared_ffn)
    width = np.maximum(width, cases.routed_tokens * model.expert_ffn / cases.split.expert_tp)
    return width * gates * storage.compute_bytes + cases.stream_tokens * model.hidden * FP32_BYTES


def cast_weights_bytes(cases: Cases, stage: str) -> Array:
    """Return the bytes of the 16-bit copies that autocast makes of the matrix weights."""
    model, storage = cases.model, cases.storage
    held = held_layers(cases, stage) + has_head(cases, stage) * model.mtp_layers
    layer = np.zeros(1)
    for name, (n, k) in model.products.items():
        layer = layer + n * k * held_copies(model, name) / model.num_layers / product_ways(cases, name)
    head = weight_copies(cases) * has_head(cases, stage) * model.vocab * model.hidden / cases.split.tp
    return np.asarray(storage.autocast * storage.compute_bytes * (held * layer + head))
