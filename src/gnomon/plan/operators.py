"""The operators of one training step of a dense decoder on one rank, as arrays over cases.

A case is one (sequence length, micro-batch, accumulation, data-parallel degree); a scalar question is an array of
one. Times are not decided here: each operator only says what it computes and moves, and which curve prices it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gnomon.plan.flops import attention_flops, layer_matmuls, matmul_flops
from gnomon.plan.traffic import COMPUTE_BYTES, TRAFFIC
from gnomon.spec import ModelSpec

Array = NDArray[np.float64]
Phase = Literal["forward", "backward", "optimizer"]


@dataclass(frozen=True, kw_only=True)
class Cases:
    """What varies in one evaluation: arrays of equal shape (n,). Model and precision are the same for all."""

    model: ModelSpec
    precision: str
    causal: bool
    clipping: bool
    num_parameters: int
    fused_rmsnorm: bool
    seq_len: Array
    micro_batch: Array
    accumulation: Array
    dp: Array

    @classmethod
    def build(
        cls,
        model: ModelSpec,
        num_parameters: int,
        *,
        seq_len: ArrayLike,
        micro_batch: ArrayLike,
        accumulation: ArrayLike = 1,
        dp: ArrayLike = 1,
        precision: str = "fp32",
        causal: bool = True,
        clipping: bool = True,
        fused_rmsnorm: bool = True,
    ) -> Cases:
        """Broadcast scalars and arrays against each other.

        `fused_rmsnorm`: PyTorch fuses RMSNorm on CUDA; on a CPU it keeps the normalised tensor too.
        """
        arrays = np.broadcast_arrays(
            *[np.atleast_1d(np.asarray(a, np.float64)) for a in (seq_len, micro_batch, accumulation, dp)]
        )
        return cls(
            model=model,
            precision=precision,
            causal=causal,
            clipping=clipping,
            num_parameters=num_parameters,
            fused_rmsnorm=fused_rmsnorm,
            seq_len=arrays[0],
            micro_batch=arrays[1],
            accumulation=arrays[2],
            dp=arrays[3],
        )

    @property
    def tokens(self) -> Array:
        """Tokens of one micro-batch."""
        return self.micro_batch * self.seq_len

    @property
    def compute_bytes(self) -> int:
        """Bytes per element in the compute dtype."""
        return COMPUTE_BYTES[self.precision]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """`calls` launches per optimizer step, each of `flops` FLOPs that moves `traffic_bytes`."""

    name: str
    phase: Phase
    term: str
    curve: Literal["matmul", "attention", "memory"]
    key: str
    calls: Array
    flops: Array
    traffic_bytes: Array
    point: tuple[Array, ...]
    launches: float = 1.0


def training_operators(cases: Cases) -> list[Operator]:
    """Return every operator of forward, backward, gradient clipping and optimizer, in the order they run."""
    return [*_embedding(cases), *_layer(cases), *_head(cases), *_accumulation(cases), *_optimizer(cases)]


def _embedding(cases: Cases) -> Iterator[Operator]:
    model, elements = cases.model, cases.tokens * cases.model.hidden_size
    passes = cases.accumulation
    yield _memory(cases, "token embedding", "embedding_head_s", "embedding", passes, elements)
    table = float(model.vocab_size * model.hidden_size)
    yield _memory(
        cases, "token embedding", "embedding_head_s", "embedding_backward", passes, elements + table / 3.0, "backward"
    )
    if model.tied_embeddings:
        yield _memory(
            cases,
            "tied weight gradient",
            "embedding_head_s",
            "gradient_add",
            passes,
            np.full_like(elements, table),
            "backward",
        )
    if model.position == "learned":
        yield _memory(cases, "position embedding", "embedding_head_s", "gradient_add", passes, elements)
        yield _memory(
            cases, "position embedding", "embedding_head_s", "gradient_add", passes, elements / 3.0, "backward"
        )


def _layer(cases: Cases) -> Iterator[Operator]:
    model, tokens = cases.model, cases.tokens
    passes = cases.accumulation * model.num_layers
    hidden = tokens * model.hidden_size
    for name, (n, k) in layer_matmuls(model).items():
        yield from _linear(cases, name, "matmul_s", passes, n, k)
    yield from _attention(cases, passes)
    yield from _both(cases, "normalisation", model.norm, passes * model.num_norms_per_layer, hidden)
    if model.qk_norm:
        width = float(model.query_size + model.kv_size)
        yield from _both(cases, "query and key normalisation", model.norm, passes, tokens * width)
    if model.position == "rope":
        width = float(model.query_size + model.kv_size)
        yield from _both(cases, "rotary positions", "rope", passes, tokens * width, launches=14.0)
    yield from _activation(cases, passes)
    yield _memory(cases, "residual", "elementwise_s", "residual", passes * 2, hidden)
    yield _memory(cases, "residual", "elementwise_s", "gradient_add", passes * 2, hidden, "backward")
    qkv = tokens * float(model.query_size + 2 * model.kv_size)
    yield _memory(cases, "qkv gradient", "elementwise_s", "copy", passes, qkv, "backward")
    if cases.precision == "bf16":
        yield from _casts(cases, "activation casts", "elementwise_s", passes * 2, hidden)


def _linear(cases: Cases, name: str, term: str, passes: Array, n: int, k: int) -> Iterator[Operator]:
    m = cases.tokens
    size = cases.compute_bytes
    traffic = size * (m * k + float(n) * k + m * n)
    flops = matmul_flops(m, n, k)
    for phase, key in (("forward", "forward"), ("backward", "grad_input"), ("backward", "grad_weight")):
        yield Operator(
            name=name if phase == "forward" else f"{name} ({key.replace('grad_', '')} gradient)",
            phase="forward" if phase == "forward" else "backward",
            term=term,
            curve="matmul",
            key=f"{cases.precision}.{key}",
            calls=passes,
            flops=flops,
            traffic_bytes=traffic,
            point=(m, np.full_like(m, n), np.full_like(m, k)),
            launches=1.0 if phase == "backward" else 2.0,
        )
    if cases.precision == "bf16":
        elements = np.full_like(m, float(n) * k)
        casts = "elementwise_s" if term == "matmul_s" else term
        yield _memory(cases, f"{name} weight cast", casts, "cast_down", passes, elements)
        yield _memory(cases, f"{name} weight gradient cast", casts, "cast_up", passes, elements, "backward")


def _attention(cases: Cases, passes: Array) -> Iterator[Operator]:
    model = cases.model
    forward = attention_flops(cases.micro_batch, cases.seq_len, model.query_size, cases.causal)
    tensors = cases.tokens * float(2 * model.query_size + 2 * model.kv_size) * cases.compute_bytes
    point = (cases.seq_len, np.full_like(cases.seq_len, model.head_dim))
    # the fused backward recomputes the scores: five products instead of two (arXiv 2205.14135)
    for phase, factor, moved, launches in (("forward", 1.0, 1.0, 8.0), ("backward", 2.5, 2.0, 8.0)):
        yield Operator(
            name="attention",
            phase="forward" if phase == "forward" else "backward",
            term="attention_s",
            curve="attention",
            key=f"{cases.precision}.{phase}",
            calls=passes,
            flops=forward * factor,
            traffic_bytes=tensors * moved,
            point=point,
            launches=launches,
        )


def _activation(cases: Cases, passes: Array) -> Iterator[Operator]:
    model = cases.model
    elements = cases.tokens * float(model.ffn_hidden_size)
    yield from _both(cases, "activation", model.activation, passes, elements)
    if model.gated_mlp:
        yield _memory(cases, "gate", "elementwise_s", "multiply", passes, elements, launches=2.0)
        yield _memory(cases, "gate", "elementwise_s", "multiply", passes * 2, elements, "backward")
        yield _memory(cases, "gate gradient", "elementwise_s", "copy", passes, elements * 2.0, "backward")


def _head(cases: Cases) -> Iterator[Operator]:
    model, passes = cases.model, cases.accumulation
    hidden = cases.tokens * float(model.hidden_size)
    logits = cases.tokens * float(model.vocab_size)
    yield from _both(cases, "final normalisation", model.norm, passes, hidden)
    yield from _linear(cases, "head", "embedding_head_s", passes, model.vocab_size, model.hidden_size)
    yield _memory(cases, "loss", "embedding_head_s", "cross_entropy", passes, logits, launches=3.0)
    yield _memory(cases, "loss", "embedding_head_s", "cross_entropy_backward", passes, logits, "backward", launches=2.0)
    if cases.precision == "bf16":
        yield _memory(cases, "logits cast", "embedding_head_s", "cast_up", passes, logits)
        yield _memory(cases, "logits cast", "embedding_head_s", "cast_down", passes, logits, "backward")
        yield from _casts(cases, "head input casts", "embedding_head_s", passes, hidden)


def _accumulation(cases: Cases) -> Iterator[Operator]:
    """Every micro-batch after the first adds its gradients to those that are there."""
    elements = np.full_like(cases.tokens, float(cases.num_parameters))
    yield _memory(
        cases,
        "gradient accumulation",
        "elementwise_s",
        "gradient_add",
        np.maximum(cases.accumulation - 1.0, 0.0),
        elements,
        "backward",
    )


def _optimizer(cases: Cases) -> Iterator[Operator]:
    elements = np.full_like(cases.tokens, float(cases.num_parameters))
    once = np.ones_like(cases.tokens)
    if cases.clipping:
        yield _memory(cases, "gradient clipping", "optimizer_s", "gradient_norm", once, elements, "optimizer", 4.0)
    yield _memory(cases, "AdamW", "optimizer_s", "adamw", once, elements, "optimizer", 2.0)


def _both(
    cases: Cases, name: str, kind: str, passes: Array, elements: Array, launches: float = 1.0
) -> Iterator[Operator]:
    yield _memory(cases, name, "elementwise_s", kind, passes, elements, "forward", launches)
    yield _memory(cases, name, "elementwise_s", f"{kind}_backward", passes, elements, "backward", launches)


def _casts(cases: Cases, name: str, term: str, passes: Array, elements: Array) -> Iterator[Operator]:
    yield _memory(cases, name, term, "cast_down", passes, elements)
    yield _memory(cases, name, term, "cast_up", passes, elements, "backward")


def _memory(
    cases: Cases,
    name: str,
    term: str,
    kind: str,
    calls: Array,
    elements: Array,
    phase: Phase = "forward",
    launches: float = 1.0,
) -> Operator:
    traffic = elements * TRAFFIC[kind].bytes_per_element(cases.precision)
    return Operator(
        name=name,
        phase=phase,
        term=term,
        curve="memory",
        key=kind,
        calls=calls,
        flops=np.zeros_like(traffic),
        traffic_bytes=traffic,
        point=(traffic,),
        launches=launches,
    )
