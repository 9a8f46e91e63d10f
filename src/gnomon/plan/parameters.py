"""Exact parameter counts of a `ModelSpec`, by the part of the network that they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import NonNegativeInt

from gnomon.spec import MLASpec, ModelSpec, MoESpec, Noun

DISTANCE_BUCKETS = 32  # of T5's relative positions (arXiv 1910.10683, section 2.1)
TIME_FREQUENCIES = 256  # of DiT's embedding of the time step (facebookresearch/DiT, models.py)


class ParameterCount(Noun):
    """Parameters of the whole model, by part. Biases belong to the part whose projection they follow."""

    embedding: NonNegativeInt = 0
    positions: NonNegativeInt = 0
    attention: NonNegativeInt = 0
    mlp: NonNegativeInt = 0
    conditioning: NonNegativeInt = 0
    router: NonNegativeInt = 0
    experts: NonNegativeInt = 0
    norm: NonNegativeInt = 0
    head: NonNegativeInt = 0
    active_experts: NonNegativeInt = 0
    buffers: NonNegativeInt = 0
    mtp: NonNegativeInt = 0
    mtp_experts: NonNegativeInt = 0

    @property
    def total(self) -> int:
        """Parameters that training updates, without the multi-token-prediction modules and without buffers.

        `mlp` holds the dense feed-forward layers and the shared experts, `experts` the routed ones; `head` is zero
        when it shares the embedding's matrix; `mtp_experts` are those of `mtp` that are routed experts;
        `conditioning` is what makes shifts, scales and gates in the layers of a diffusion transformer.
        """
        dense = self.embedding + self.positions + self.attention + self.mlp + self.norm + self.head + self.conditioning
        return dense + self.router + self.experts

    @property
    def active(self) -> int:
        """Parameters that one token meets: the total with only the routed experts that it is sent to."""
        return self.total - self.experts + self.active_experts


class Linear(NamedTuple):
    """A matrix product of `inputs` by `outputs`, and its bias."""

    inputs: int
    outputs: int
    bias: bool = False

    @property
    def weights(self) -> int:
        """Elements of the matrix."""
        return self.inputs * self.outputs

    @property
    def parameters(self) -> int:
        """Elements of the matrix and the bias."""
        return self.weights + self.bias * self.outputs


def count_parameters(spec: ModelSpec) -> ParameterCount:
    """Return the exact number of parameters of `spec`, by part."""
    dense_layers, moe_layers = layer_counts(spec)
    layers, crossed = all_layers(spec), spec.num_layers if spec.encoder else 0
    halves = 2 if spec.encoder else 1
    expert = parameters_of(expert_linears(spec))
    num_experts, experts_per_token = (spec.moe.num_experts, spec.moe.experts_per_token) if spec.moe else (0, 0)
    norm = _norm(spec, spec.hidden_size)
    return ParameterCount(
        embedding=_embedding(spec),
        positions=_positions(spec, halves),
        attention=(layers + crossed) * _attention(spec),
        mlp=dense_layers * parameters_of(mlp_linears(spec)) + moe_layers * parameters_of(shared_expert_linears(spec)),
        conditioning=layers * parameters_of(modulation_linears(spec)),
        router=moe_layers * parameters_of(router_linears(spec)),
        experts=moe_layers * num_experts * expert,
        norm=layers * _layer_norms(spec) + crossed * norm + halves * norm,
        head=_head(spec),
        active_experts=moe_layers * experts_per_token * expert,
        buffers=moe_layers * num_experts if spec.moe and spec.moe.selection_bias else 0,
        mtp=spec.num_mtp_layers * _mtp_module(spec),
        mtp_experts=spec.num_mtp_layers * num_experts * expert,
    )


def all_layers(spec: ModelSpec) -> int:
    """Return the number of layers of the decoder and, where there is one, of the encoder."""
    return spec.num_layers + (spec.encoder.num_layers if spec.encoder else 0)


def layer_counts(spec: ModelSpec) -> tuple[int, int]:
    """Return the number of layers with a dense feed-forward and with a mixture of experts."""
    dense = sum(spec.is_dense(layer) for layer in range(spec.num_layers)) if spec.moe else all_layers(spec)
    return dense, all_layers(spec) - dense


def attention_linears(spec: ModelSpec) -> tuple[Linear, ...]:
    """Return the projections of one attention layer, the output projection last."""
    if spec.mla is not None:
        return _latent_attention_linears(spec, spec.mla)
    return (
        Linear(spec.hidden_size, spec.query_size, spec.attention_bias),
        Linear(spec.hidden_size, spec.kv_size, spec.attention_bias),
        Linear(spec.hidden_size, spec.kv_size, spec.attention_bias),
        Linear(spec.query_size, spec.hidden_size, spec.attention_output_bias),
    )


def _latent_attention_linears(spec: ModelSpec, mla: MLASpec) -> tuple[Linear, ...]:
    """Return the projections of DeepSeek-V2 (arXiv 2405.04434, appendix C): down to the latents, up to the heads."""
    query_size = spec.num_heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    key_value_size = spec.num_heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    query: tuple[Linear, ...] = (Linear(spec.hidden_size, query_size),)
    if mla.q_lora_rank is not None:
        down = Linear(spec.hidden_size, mla.q_lora_rank, spec.attention_bias)
        query = (down, Linear(mla.q_lora_rank, query_size))
    return (
        *query,
        Linear(spec.hidden_size, mla.kv_lora_rank + mla.qk_rope_head_dim, spec.attention_bias),
        Linear(mla.kv_lora_rank, key_value_size),
        Linear(spec.num_heads * mla.v_head_dim, spec.hidden_size, spec.attention_output_bias),
    )


def mlp_linears(spec: ModelSpec) -> tuple[Linear, ...]:
    """Return the projections of one dense feed-forward layer."""
    return _feed_forward(spec, spec.ffn_hidden_size, spec.mlp_bias)


def expert_linears(spec: ModelSpec) -> tuple[Linear, ...]:
    """Return the projections of one routed expert; none when the model has no experts."""
    return _feed_forward(spec, spec.moe.expert_ffn_size, spec.moe.expert_bias) if spec.moe else ()


def shared_expert_linears(spec: ModelSpec) -> tuple[Linear, ...]:
    """Return the projections of all shared experts of one layer together, and of their gate."""
    moe = spec.moe
    if moe is None or moe.num_shared_experts == 0:
        return ()
    gate = (Linear(spec.hidden_size, 1),) if moe.shared_expert_gate else ()
    return (*_feed_forward(spec, moe.shared_expert_ffn_size, moe.expert_bias), *gate)


def router_linears(spec: ModelSpec) -> tuple[Linear, ...]:
    """Return the projection of one router; none when the model has no experts."""
    moe: MoESpec | None = spec.moe
    return (Linear(spec.hidden_size, moe.num_experts, moe.router_bias),) if moe else ()


def modulation_linears(spec: ModelSpec) -> tuple[Linear, ...]:
    """Return the projection of a layer's condition to shift, scale and gate of two branches (DiT); else none."""
    return (Linear(spec.hidden_size, 6 * spec.hidden_size, True),) if spec.diffusion else ()


def _embedding(spec: ModelSpec) -> int:
    """Return the table of tokens, or the projection of patches with the embeddings of time step and class."""
    hidden, diffusion = spec.hidden_size, spec.diffusion
    if diffusion is None:
        return spec.vocab_size * hidden
    time = (Linear(TIME_FREQUENCIES, hidden, True), Linear(hidden, hidden, True))
    classes = (diffusion.num_classes + 1) * hidden if diffusion.num_classes else 0  # one more for no class
    return parameters_of((Linear(diffusion.inputs, hidden, True), *time)) + classes


def _positions(spec: ModelSpec, halves: int) -> int:
    """Return learned positions, or the biases per head and bucket of distances that the layers of a half share."""
    if spec.position == "learned":
        return spec.max_seq_len * spec.hidden_size
    return halves * DISTANCE_BUCKETS * spec.num_heads if spec.position == "relative" else 0


def _head(spec: ModelSpec) -> int:
    hidden, diffusion = spec.hidden_size, spec.diffusion
    if diffusion is None:
        return 0 if spec.tied_embeddings else spec.vocab_size * hidden
    return parameters_of((Linear(hidden, 2 * hidden, True), Linear(hidden, diffusion.outputs, True)))


def _feed_forward(spec: ModelSpec, width: int, bias: bool) -> tuple[Linear, ...]:
    up = Linear(spec.hidden_size, width, bias)
    down = Linear(width, spec.hidden_size, bias)
    return (up, up, down) if spec.gated_mlp else (up, down)


def _attention(spec: ModelSpec) -> int:
    return parameters_of(attention_linears(spec)) + (spec.num_heads if spec.attention_sinks else 0)


def _layer_norms(spec: ModelSpec) -> int:
    heads = 2 * _norm(spec, spec.head_dim) if spec.qk_norm else 0
    latents = 0
    if spec.mla is not None:
        latents = _norm(spec, spec.mla.kv_lora_rank) + _norm(spec, spec.mla.q_lora_rank or 0)
    return spec.num_norms_per_layer * _norm(spec, spec.hidden_size) + heads + latents


def _norm(spec: ModelSpec, size: int) -> int:
    """Return the weights of a norm; where a condition scales and shifts instead, it has none."""
    if spec.diffusion is not None:
        return 0
    return size * (2 if spec.norm == "layernorm" and spec.norm_bias else 1)


def _mtp_module(spec: ModelSpec) -> int:
    """Return the parameters of one multi-token-prediction module that the main model does not share.

    DeepSeek-V3 (arXiv 2412.19437, section 2.2): three norms, the projection of two concatenated hidden states, and
    one transformer layer like the last of the main model. Embedding and head are shared.
    """
    moe = spec.moe
    feed_forward = parameters_of(mlp_linears(spec))
    if moe is not None:
        shared = parameters_of(router_linears(spec)) + parameters_of(shared_expert_linears(spec))
        feed_forward = shared + moe.num_experts * parameters_of(expert_linears(spec))
    projection = Linear(2 * spec.hidden_size, spec.hidden_size).parameters
    norms = 3 * _norm(spec, spec.hidden_size) + _layer_norms(spec)
    return projection + norms + _attention(spec) + feed_forward


def parameters_of(linears: Iterable[Linear]) -> int:
    """Return the parameters of several projections."""
    return sum(linear.parameters for linear in linears)
