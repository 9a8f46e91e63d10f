"""Memory at the peak of a training step, from the tensors that autograd keeps.

Two instants can be the peak: the start of the backward pass, when every activation is alive, and its end, when
every gradient is. In between both change linearly with the layer, so one of the ends is the largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.flops import layer_matmuls
from gnomon.plan.operators import Cases
from gnomon.plan.traffic import FP32_BYTES

Array = NDArray[np.float64]


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


def training_memory(cases: Cases) -> MemoryTerms:
    """Return the peak of one rank for fp32 weights, gradients and AdamW state (two moments)."""
    state = np.full_like(cases.tokens, float(cases.num_parameters * FP32_BYTES))
    distributed = cases.dp > 1
    held_gradients = np.where(distributed | (cases.accumulation > 1), state, 0.0)
    forward_end = held_gradients + saved_activations_bytes(cases) + backward_workspace_bytes(cases)
    backward_end = state
    return MemoryTerms(
        weights=state,
        gradients=state,
        optimizer=2.0 * state,
        activations=np.maximum(forward_end, backward_end) - state,
        communication=np.zeros_like(state),
    )


def layer_activations_bytes(cases: Cases) -> Array:
    """Return the bytes that one layer keeps from forward to backward for one micro-batch.

    The residual stream and the normalisations are fp32; inputs and outputs of matrix products, attention and
    activation are in the compute dtype (`c` bytes).
    """
    model, tokens, c = cases.model, cases.tokens, cases.compute_bytes
    norms = float(model.num_norms_per_layer)
    residual = norms * FP32_BYTES * model.hidden_size
    normalised = norms * c * model.hidden_size
    qkv = float(model.query_size + 2 * model.kv_size) * c
    attention = float(model.query_size) * c + FP32_BYTES * model.num_heads
    gated = 3.0 if model.gated_mlp else 1.0
    feed_forward = (gated + 1.0) * model.ffn_hidden_size * c
    return tokens * (residual + normalised + qkv + attention + feed_forward + _extra_per_token(cases))


def _extra_per_token(cases: Cases) -> float:
    """Return the bytes per token of what only some models keep: statistics, rotated and normalised heads."""
    model, c = cases.model, cases.compute_bytes
    heads = float(model.query_size + model.kv_size)
    extra = 4.0 * FP32_BYTES if model.norm == "layernorm" else 2.0 * FP32_BYTES
    decomposed = model.norm == "rmsnorm" and not cases.fused_rmsnorm
    if decomposed:
        extra += 2.0 * FP32_BYTES * model.hidden_size
    if model.position == "rope":
        extra += heads * c
    if model.qk_norm:
        extra += heads * (c + (FP32_BYTES if cases.precision == "bf16" else 0.0) + FP32_BYTES * decomposed)
    return extra


def saved_activations_bytes(cases: Cases) -> Array:
    """Return the bytes of everything that autograd holds when the loss has been computed."""
    model, tokens, c = cases.model, cases.tokens, cases.compute_bytes
    final = tokens * model.hidden_size * (FP32_BYTES + c)
    loss = tokens * model.vocab_size * FP32_BYTES
    weight_copies = cast_weights_bytes(cases)
    return model.num_layers * layer_activations_bytes(cases) + final + loss + weight_copies


def cast_weights_bytes(cases: Cases) -> float:
    """Return the bytes of the bf16 copies that autocast makes of the matrix weights."""
    if cases.precision == "fp32":
        return 0.0
    model = cases.model
    layer = sum(n * k for n, k in layer_matmuls(model).values())
    return float(cases.compute_bytes * (model.num_layers * layer + model.vocab_size * model.hidden_size))


def backward_workspace_bytes(cases: Cases) -> Array:
    """Return the larger transient at the start of backward: the loss gradient, or the last layer's MLP."""
    model, tokens, c = cases.model, cases.tokens, cases.compute_bytes
    logits = tokens * model.vocab_size * (FP32_BYTES + (c if cases.precision == "bf16" else 0))
    # the gradients that are alive together, less the saved tensors that the products before have released
    width = model.ffn_hidden_size * (2.0 if model.gated_mlp else 1.0)
    feed_forward = tokens * (width * c + model.hidden_size * FP32_BYTES) - tokens * model.vocab_size * FP32_BYTES
    return np.maximum(logits, feed_forward)
