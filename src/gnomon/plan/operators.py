"""The operators of one training step on one rank of any layout, as arrays over cases.

Times are not decided here: each operator only says what it computes and moves, and which curve prices it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.plan.halves import halves
from gnomon.plan.operator import Operator, Phase, Place
from gnomon.plan.sizes import PRODUCTS, mean_keys
from gnomon.plan.stages import held_parameters, updated_parameters
from gnomon.plan.traffic import OTHER_TRAFFIC, SAME_CURVE, TRAFFIC

# of an operator's launch: kernels of a group are launched from C++, its views are made in Python; assumed
FURTHER_KERNEL = 0.4
PHASES: tuple[tuple[Phase, str], ...] = (
    ("forward", "forward"),
    ("backward", "grad_input"),
    ("backward", "grad_weight"),
)


def training_operators(cases: Cases) -> list[Operator]:
    """Return every operator of forward, backward, gradient clipping and optimizer, in the order they run."""
    return [*micro_batch_operators(cases), *step_operators(cases)]


def micro_batch_operators(cases: Cases) -> list[Operator]:
    """Return the operators of one micro-batch, which the pipeline, data parallelism and sharding do not change."""
    return _present([*_embedding(cases), *_layers(cases), *_head(cases)])


def step_operators(cases: Cases) -> list[Operator]:
    """Return the operators on the gradients and states that a rank holds or updates."""
    return _present(_step(cases))


def _present(found: Iterable[Operator]) -> list[Operator]:
    return [o for o in found if np.any((o.calls > 0) & ((o.flops > 0) | (o.traffic_bytes > 0)))]


def _embedding(cases: Cases) -> Iterator[Operator]:
    model, tp = cases.model, cases.split.tp
    elements = (cases.tokens + cases.memory_tokens) * model.hidden
    table = cases.rank_vocab * model.hidden
    term: str = "embedding_head_s"
    place: Place = "first"
    looked_up = 1.0 - model.conditioned
    yield _memory(cases, "token embedding", term, "embedding", looked_up, elements, place=place)
    yield _memory(
        cases, "token embedding", term, "embedding_backward", looked_up, elements + table / 3.0, "backward", place=place
    )
    patches = (cases.tokens, model.hidden + 0.0 * tp, model.patch + 0.0 * tp, np.ones_like(tp))
    yield from _linear(cases, "patch embedding", term, model.conditioned, patches, place)
    yield _memory(cases, "tied weight gradient", term, "gradient_add", model.tied, table, "backward", place=place)
    positions = model.learned_positions
    yield _memory(cases, "position embedding", term, "gradient_add", positions, elements, place=place)
    yield _memory(cases, "position embedding", term, "gradient_add", positions, elements / 3.0, "backward", place=place)


def _layers(cases: Cases) -> Iterator[Operator]:
    """Yield the operators of an average layer: each half's, as often as it has a share of the layers."""
    for half in halves(cases):
        for operator in _layer(half.cases):
            yield replace(operator, name=half.name + operator.name, calls=operator.calls * half.share)


def _layer(cases: Cases) -> Iterator[Operator]:
    model = cases.model
    for name, (split, layers) in PRODUCTS.items():
        yield from _product(cases, name, split, layers)
    keys, read = mean_keys(model, cases.seq_len, cases.causal), cases.encoder_seq_len
    yield from _attention(cases, "attention", keys, cases.seq_len, cases.tokens, np.ones(1))
    yield from _attention(cases, "cross attention", read, read, cases.memory_tokens, cases.crossed)
    yield from _relative_positions(cases)
    yield from _elementwise(cases)
    yield from _activation(cases)
    yield from _experts(cases)
    hidden = cases.stream_tokens * model.hidden
    branches = 2.0 + cases.crossed
    joins = np.where(model.parallel_block > 0, 1.0, branches)
    yield _memory(cases, "residual", "elementwise_s", "residual", branches, hidden)
    yield _memory(cases, "residual", "elementwise_s", "stream_add", joins, hidden, "backward")
    yield from _both(cases, "dropout", "dropout", branches * cases.dropout, hidden, same=True)
    qkv = cases.tokens * (cases.rank_queries + cases.rank_keys + cases.rank_values)
    # the gradients of the three slices of one product are put together, unless a fused attention kernel writes them so
    apart = np.maximum(1.0 - cases.storage.fused, 1.0 - cases.flash)
    yield _memory(cases, "qkv gradient", "elementwise_s", "copy", apart, qkv, "backward")
    yield from _casts(cases, "activation casts", "elementwise_s", 2.0, hidden, "layer")


def _product(cases: Cases, name: str, split: str, layers: str) -> Iterator[Operator]:
    """Yield the forward product and its two gradients, and the casts of its weight under autocast."""
    model, tp = cases.model, cases.split.tp
    n, k = model.products[name]
    if not np.any(n):
        return
    groups, m, ways = np.ones_like(tp), cases.tokens, tp
    if split == "replicated":
        # computed by each rank for its own tokens
        m, ways = cases.stream_tokens, np.ones_like(tp)
    if layers in ("memory", "condition"):
        m = cases.memory_tokens if layers == "memory" else cases.micro_batch
    if layers == "expert":
        ways = cases.split.expert_tp
        groups = np.maximum(model.experts / cases.split.ep, 1e-9)
        m = cases.routed_tokens / groups
    n_local = n / ways if split == "column" else n
    k_local = k / ways if split == "row" else k
    share = _share(cases, layers)
    shape = (m, n_local, k_local, groups)
    again = cases.last_product_again if name == "mlp down" else 1.0
    yield from _linear(cases, name, "matmul_s", share, shape, "layer", again)


def _share(cases: Cases, layers: str) -> Array:
    """Return the part of the layers that have this kind of product (all have attention)."""
    model = cases.model
    if layers == "attention":
        return np.ones_like(model.num_layers)
    if layers in ("cross", "memory"):
        return cases.crossed
    if layers == "condition":
        return model.conditioned
    return (model.dense_layers if layers == "dense" else model.moe_layers) / model.num_layers


def _linear(
    cases: Cases,
    name: str,
    term: str,
    calls: Array,
    shape: tuple[Array, Array, Array, Array],
    place: Place,
    again: float | Array = 1.0,
) -> Iterator[Operator]:
    m, n, k, groups = shape
    storage = cases.storage
    wide = place != "layer"
    operand = storage.compute_bytes if wide else storage.operand_bytes
    flops = 2.0 * m * n * k * groups
    # the kernels of a grouped product are launched by one operator
    each = 1.0 + FURTHER_KERNEL * np.maximum(groups - 1.0, 0.0)
    traffic = groups * (operand * (m * k + n * k) + storage.compute_bytes * m * n)
    for phase, key in PHASES:
        yield Operator(
            name=name if phase == "forward" else f"{name} ({key.replace('grad_', '')} gradient)",
            phase=phase,
            place=place,
            term=term,
            curve="matmul",
            key=key,
            calls=calls,
            flops=flops,
            traffic_bytes=traffic,
            point=(m, n, k, groups),
            launches=each * (1.0 if phase == "backward" else 2.0 - storage.fused),
            wide=wide,
            again=again,
        )
    casts = "elementwise_s" if term == "matmul_s" else term
    weights = n * k * groups
    cast_calls = calls * storage.autocast
    yield _memory(cases, f"{name} weight cast", casts, "cast_down", cast_calls, weights, place=place)
    yield _memory(cases, f"{name} weight gradient cast", casts, "cast_up", cast_calls, weights, "backward", place=place)
    narrow = calls * ((storage.operand_bytes < storage.compute_bytes) & (not wide))
    # inputs in the forward pass, output gradients in the backward pass; each quantised once in both orientations
    yield _memory(cases, f"{name} quantisation", casts, "quantize", narrow, m * k * groups, "forward", each, place)
    yield _memory(cases, f"{name} quantisation", casts, "quantize", narrow, m * n * groups, "backward", each, place)


def _attention(
    cases: Cases, name: str, keys: Array, length: Array, key_tokens: Array, there: Array
) -> Iterator[Operator]:
    """Yield an attention whose queries meet `keys` keys each, of the `length` that a sequence has.

    `key_tokens` are the keys of a micro-batch on one rank; `there` is 0 where a case lacks this attention.
    """
    if not np.any(there):
        return
    model, split, storage = cases.model, cases.split, cases.storage
    heads = model.heads / split.tp
    forward = 2.0 * cases.tokens * keys * heads * (model.head_dim + model.value_dim)
    queried = cases.tokens * (cases.rank_queries + cases.rank_attended)
    tensors = (queried + key_tokens * (cases.rank_keys + cases.rank_values)) * storage.compute_bytes
    # the fused backward recomputes the scores: five products instead of two (arXiv 2205.14135)
    for phase, factor, moved in (("forward", 1.0, 1.0), ("backward", 2.5, 2.0)):
        yield Operator(
            name=name,
            phase="forward" if phase == "forward" else "backward",
            place="layer",
            term="attention_s",
            curve="attention",
            key=phase,
            calls=there * cases.flash,
            flops=forward * factor,
            traffic_bytes=tensors * moved,
            point=(length, model.head_dim),
            launches=np.where(storage.fused > 0, 1.0, 8.0),
        )
    yield from _unfused_attention(cases, name, length, key_tokens, there * (1.0 - cases.flash))


def _unfused_attention(cases: Cases, name: str, length: Array, key_tokens: Array, calls: Array) -> Iterator[Operator]:
    """Yield scores, softmax, dropout and values as separate kernels over the whole square, whatever the mask."""
    model, split = cases.model, cases.split
    rows = cases.seq_len / split.cp
    groups = cases.micro_batch * model.heads / split.tp
    scores = groups * rows * length
    for part, n, k in (("scores", length, model.head_dim), ("values", model.value_dim, length)):
        for phase, key in PHASES:
            yield Operator(
                name=f"{name} {part}",
                phase=phase,
                place="layer",
                term="attention_s",
                curve="matmul",
                key=key,
                calls=calls,
                flops=2.0 * rows * n * k * groups,
                traffic_bytes=groups * cases.storage.compute_bytes * (rows * k + n * k + rows * n),
                point=(rows, n + 0.0 * rows, k + 0.0 * rows, groups),
                wide=True,
            )
    for kind, some in (("softmax", calls), ("dropout", calls * cases.dropout)):
        yield _memory(cases, f"{name} {kind}", "attention_s", kind, some, scores)
        back = "softmax_backward" if kind == "softmax" else kind
        yield _memory(cases, f"{name} {kind}", "attention_s", back, some, scores, "backward")
    # the factor 1 / sqrt(head size) of the scores, a kernel of its own on the gradients of queries and keys
    scaled = cases.tokens * cases.rank_queries + key_tokens * cases.rank_keys
    yield _memory(cases, f"{name} scaling", "attention_s", "copy", calls, scaled, "backward", launches=2.0)


def _relative_positions(cases: Cases) -> Iterator[Operator]:
    """Yield the biases of distances where scores are stored: added to them, and their gradients summed over a batch."""
    scores = cases.micro_batch * cases.model.heads / cases.split.tp * cases.seq_len * cases.seq_len / cases.split.cp
    calls = cases.model.relative_positions * (1.0 - cases.flash)
    yield _memory(cases, "relative positions", "attention_s", "multiply", calls, scores)
    yield _memory(cases, "relative positions", "attention_s", "copy", calls, scores, "backward")


def _elementwise(cases: Cases) -> Iterator[Operator]:
    model, storage = cases.model, cases.storage
    hidden = cases.stream_tokens * model.hidden
    heads = cases.tokens * (cases.rank_queries + cases.rank_keys)
    norm = model.norm
    yield from _both(cases, "normalisation", norm, model.norms_per_layer + cases.crossed, hidden)
    yield from _both(cases, "latent normalisation", norm, model.mla, cases.stream_tokens * model.latent)
    yield from _both(cases, "query and key normalisation", norm, model.qk_norm, heads)
    eager, fused = model.rope * (1.0 - storage.fused), model.rope * storage.fused
    yield from _both(cases, "rotary positions", "rope", eager, heads, launches=14.0)
    yield from _both(cases, "rotary positions", "rope_fused", fused, heads, launches=2.0, same=True)
    # scale and shift after each of two norms, a gate before each residual; a compiler joins them with their neighbours
    modulations = model.conditioned * np.where(storage.fused > 0, 2.0, 6.0)
    yield from _both(cases, "modulation", "multiply", modulations, hidden, same=True)


def _activation(cases: Cases) -> Iterator[Operator]:
    model, tp = cases.model, cases.split.tp
    routed = cases.routed_tokens * model.expert_ffn / cases.split.expert_tp * model.moe_layers
    dense = cases.tokens / tp * (model.ffn * model.dense_layers + model.shared_ffn * model.moe_layers)
    elements = (dense + routed) / model.num_layers
    gated, fused = model.gated, cases.storage.fused
    eager = gated * (1.0 - fused)
    yield from _both(cases, "activation", model.activation, 1.0 - gated * fused, elements)
    yield from _both(cases, "gated activation", "gate_fused", gated * fused, elements)
    yield _memory(cases, "gate", "elementwise_s", "multiply", eager, elements, launches=2.0)
    yield _memory(cases, "gate", "elementwise_s", "multiply", eager * 2.0, elements, "backward")
    yield _memory(cases, "gate gradient", "elementwise_s", "copy", eager, elements * 2.0, "backward")


def _experts(cases: Cases) -> Iterator[Operator]:
    """Yield the permutations before and after the experts, and their dispatch."""
    model = cases.model
    share = model.moe_layers / model.num_layers
    moved = cases.routed_tokens * model.hidden
    yield from _both(cases, "expert permutation", "permute", 2.0 * share, moved, launches=6.0, same=True)
    logits = cases.stream_tokens * model.experts
    yield from _both(cases, "router softmax", "softmax", share, logits, launches=12.0)


def _head(cases: Cases) -> Iterator[Operator]:
    model, tp = cases.model, cases.split.tp
    hidden = cases.stream_tokens * model.hidden
    logits = cases.tokens * cases.rank_vocab
    passes = 1.0 + model.mtp_layers
    term: str = "embedding_head_s"
    place: Place = "last"
    # two more norms and a projection of both they return for each further token that is predicted (arXiv 2412.19437)
    norms = passes + 2.0 * model.mtp_layers
    for phase, kind in (("forward", model.norm), ("backward", f"{model.norm}_backward")):
        # the final norm is elementwise work like any other
        step: Phase = "forward" if phase == "forward" else "backward"
        yield _memory(cases, "final normalisation", "elementwise_s", kind, norms, hidden, step, place=place)
    if np.any(model.mtp_layers):
        for step, kind, table in (("forward", "embedding", 0.0), ("backward", "embedding_backward", cases.rank_vocab)):
            moved = (cases.tokens + table / 3.0) * model.hidden
            yield _memory(cases, "token embedding", term, kind, model.mtp_layers, moved, step, place=place)
        both = (cases.tokens, model.hidden / tp, 2.0 * model.hidden + 0.0 * tp, np.ones_like(tp))
        yield from _linear(cases, "prediction module", "matmul_s", model.mtp_layers, both, place)
    shape = (cases.tokens, cases.rank_vocab, model.hidden + 0.0 * tp, np.ones_like(tp))
    yield from _linear(cases, "head", term, passes, shape, place)
    fused, apart = passes * cases.storage.fused_loss, passes * (1.0 - cases.storage.fused_loss)
    yield _memory(cases, "loss", term, "cross_entropy", fused, logits, launches=3.0, place=place)
    yield _memory(cases, "loss", term, "cross_entropy_backward", fused, logits, "backward", 2.0, place)
    yield _memory(cases, "loss", term, "parallel_cross_entropy", apart, logits, launches=9.0, place=place)
    yield _memory(cases, "loss", term, "parallel_cross_entropy_backward", apart, logits, "backward", 4.0, place)
    casts = passes * cases.storage.autocast
    yield _memory(cases, "logits cast", term, "cast_up", casts, logits, place=place)
    yield _memory(cases, "logits cast", term, "cast_down", casts, logits, "backward", place=place)
    yield from _casts(cases, "head input casts", term, passes, hidden, place)


def _step(cases: Cases) -> Iterator[Operator]:
    """Yield what happens once per accumulation or optimizer step over the parameters that a rank holds or updates."""
    held, updated = held_parameters(cases), updated_parameters(cases)
    storage = cases.storage
    add: str = "gradient_add"
    place: Place = "accumulation"
    wide = storage.weight_bytes == 4.0
    # fp32: the measured kernel; else read the new gradient, read and write the sum, unless the product itself adds
    yield _memory(cases, "gradient accumulation", "elementwise_s", add, 1.0 * wide, held, "backward", place=place)
    added = held * (storage.compute_bytes + 2.0 * storage.gradient_bytes)
    apart = (1.0 - storage.fused_accumulation) * ~wide
    yield _memory(cases, "gradient accumulation", "elementwise_s", "accumulate", apart, added, "backward", place=place)
    # fp32: the measured kernels; else read gradient, masters and moments, write masters, moments and weights
    clip, adam = cases.clipping * wide, 1.0 * wide
    yield _memory(cases, "gradient clipping", "optimizer_s", "gradient_norm", clip, updated, "optimizer", 4.0, "step")
    yield _memory(cases, "AdamW", "optimizer_s", "adamw", adam, updated, "optimizer", 2.0, "step")
    moved = storage.gradient_bytes * (1.0 + 2.0 * cases.clipping) + 2.0 * storage.master_bytes + storage.weight_bytes
    yield _memory(cases, "AdamW", "optimizer_s", "optimizer", 1.0 - wide, updated * moved, "optimizer", 4.0, "step")


def _both(
    cases: Cases,
    name: str,
    kind: str,
    calls: Array | float,
    elements: Array,
    launches: float = 1.0,
    same: bool = False,
) -> Iterator[Operator]:
    """Yield an elementwise operator and its backward (of the `same` traffic, or of its own kind)."""
    yield _memory(cases, name, "elementwise_s", kind, calls, elements, "forward", launches)
    backward = kind if same else f"{kind}_backward"
    yield _memory(cases, name, "elementwise_s", backward, calls, elements, "backward", launches)


def _casts(
    cases: Cases, name: str, term: str, calls: Array | float, elements: Array, place: Place
) -> Iterator[Operator]:
    some = calls * cases.storage.autocast
    yield _memory(cases, name, term, "cast_down", some, elements, place=place)
    yield _memory(cases, name, term, "cast_up", some, elements, "backward", place=place)


def _memory(
    cases: Cases,
    name: str,
    term: str,
    kind: str,
    calls: Array | float,
    elements: Array,
    phase: Phase = "forward",
    launches: Array | float = 1.0,
    place: Place = "layer",
) -> Operator:
    storage = cases.storage
    traffic = TRAFFIC.get(kind) or OTHER_TRAFFIC[kind]
    size = traffic.fixed + traffic.per_compute_byte * storage.compute_bytes
    size = size + traffic.per_stream_byte * storage.stream_bytes
    moved = elements * size * (storage.passes if place == "layer" else 1.0)
    return Operator(
        name=name,
        phase=phase,
        place=place,
        term=term,
        curve="memory",
        key=SAME_CURVE.get(kind, kind),
        calls=np.asarray(calls, dtype=np.float64) * np.ones(1),
        flops=np.zeros(1),
        traffic_bytes=moved,
        launches=launches,
    )
