"""A model as arrays: the sizes that the formulas of time and memory need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.plan.arrays import Array, array
from gnomon.plan.parameters import (
    all_layers,
    count_parameters,
    expert_linears,
    layer_counts,
    mlp_linears,
    parameters_of,
)
from gnomon.spec import ModelSpec

# products of one layer: how tensor parallelism splits each, and which layers have it; those of "memory" read what an
# encoder wrote, those of "condition" one vector per sequence
PRODUCTS = {
    "qkv projection": ("column", "attention"),
    "query down": ("replicated", "attention"),
    "query up": ("column", "attention"),
    "key value down": ("replicated", "attention"),
    "key value up": ("column", "attention"),
    "attention output": ("row", "attention"),
    "mlp up": ("column", "dense"),
    "mlp down": ("row", "dense"),
    "shared expert up": ("column", "moe"),
    "shared expert down": ("row", "moe"),
    "router": ("replicated", "moe"),
    "expert up": ("column", "expert"),
    "expert down": ("row", "expert"),
    "cross query": ("column", "cross"),
    "cross key value": ("column", "memory"),
    "cross output": ("row", "cross"),
    "modulation": ("column", "condition"),
}


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Counts of elements, one entry per case. `products[name]` is (n, k) of one product, zero where absent.

    Of one layer: `layer_parameters` are those that all have, `dense_parameters` and `moe_parameters` what each kind has
    beside them, `expert_parameters` its routed experts.
    """

    num_layers: Array
    encoder_layers: Array
    dense_layers: Array
    leading_dense: Array
    moe_layers: Array
    mtp_layers: Array
    hidden: Array
    ffn: Array
    vocab: Array
    heads: Array
    query: Array
    key_value: Array
    head_dim: Array
    value_dim: Array
    gated: Array
    tied: Array
    conditioned: Array
    patch: Array
    learned_positions: Array
    rope: Array
    relative_positions: Array
    layernorm: Array
    norms_per_layer: Array
    qk_norm: Array
    mla: Array
    latent: Array
    experts: Array
    top_k: Array
    expert_ffn: Array
    shared_ffn: Array
    window: Array
    window_layers: Array
    parallel_block: Array
    layer_parameters: Array
    dense_parameters: Array
    moe_parameters: Array
    expert_parameters: Array
    embedding_parameters: Array
    head_parameters: Array
    mtp_parameters: Array
    mtp_expert_parameters: Array
    parameters: Array
    parameter_tensors: Array
    products: dict[str, tuple[Array, Array]]
    norm: str
    activation: str

    @classmethod
    def of(cls, spec: ModelSpec) -> ModelSizes:
        """Return the sizes of one model."""
        count = count_parameters(spec)
        moe, mla, diffusion = spec.moe, spec.mla, spec.diffusion
        layers, (dense, sparse) = all_layers(spec), layer_counts(spec)
        value_dim = mla.v_head_dim if mla else spec.head_dim
        head_dim = mla.qk_nope_head_dim + mla.qk_rope_head_dim if mla else spec.head_dim
        latent = mla.kv_lora_rank + mla.qk_rope_head_dim + (mla.q_lora_rank or 0) if mla else 0
        feed_forward, of_dense = count.mlp + count.router, parameters_of(mlp_linears(spec))
        of_sparse = (feed_forward - dense * of_dense) / max(sparse, 1)
        ends = count.embedding + count.positions + count.head
        layer = (count.total - ends - feed_forward - count.experts) / layers
        return cls(
            num_layers=array(layers),
            encoder_layers=array(layers - spec.num_layers),
            dense_layers=array(dense),
            leading_dense=array(moe.num_dense_layers if moe else dense),
            moe_layers=array(sparse),
            mtp_layers=array(spec.num_mtp_layers),
            hidden=array(spec.hidden_size),
            ffn=array(spec.ffn_hidden_size),
            vocab=array(diffusion.outputs if diffusion else spec.vocab_size),
            heads=array(spec.num_heads),
            query=array(spec.num_heads * head_dim),
            key_value=array(spec.num_heads * head_dim if mla else spec.kv_size),
            head_dim=array(head_dim),
            value_dim=array(value_dim),
            gated=array(spec.gated_mlp),
            tied=array(spec.tied_embeddings),
            conditioned=array(diffusion is not None),
            patch=array(diffusion.inputs if diffusion else 0),
            learned_positions=array(spec.position == "learned"),
            rope=array(spec.position == "rope"),
            relative_positions=array(spec.position == "relative"),
            layernorm=array(spec.norm == "layernorm"),
            norms_per_layer=array(spec.num_norms_per_layer),
            qk_norm=array(spec.qk_norm),
            mla=array(mla is not None),
            latent=array(latent),
            experts=array(moe.num_experts if moe else 0),
            top_k=array(moe.experts_per_token if moe else 0),
            expert_ffn=array(moe.expert_ffn_size if moe else 0),
            shared_ffn=array(moe.shared_expert_ffn_size if moe else 0),
            window=array(spec.sliding_window or 0),
            window_layers=array(spec.num_sliding_window_layers if spec.sliding_window else 0),
            parallel_block=array(spec.parallel_block),
            layer_parameters=array(layer),
            dense_parameters=array(of_dense),
            moe_parameters=array(of_sparse),
            expert_parameters=array(count.experts / max(sparse, 1)),
            embedding_parameters=array(count.embedding + count.positions),
            head_parameters=array(count.head),
            mtp_parameters=array(count.mtp - count.mtp_experts),
            mtp_expert_parameters=array(count.mtp_experts),
            parameters=array(count.total),
            parameter_tensors=array(num_parameter_tensors(spec)),
            products={name: (array(n), array(k)) for name, (n, k) in layer_products(spec).items()},
            norm=spec.norm,
            activation=spec.activation,
        )


def held_copies(model: ModelSizes, product: str) -> Array:
    """Return how many matrices of a product the model has: one per layer that has it, or per expert there."""
    decoder = model.num_layers - model.encoder_layers
    return {
        "attention": model.num_layers,
        "dense": model.dense_layers,
        "moe": model.moe_layers,
        "expert": model.moe_layers * model.experts,
        "cross": decoder,
        "memory": decoder,
        "condition": model.num_layers,
    }[PRODUCTS[product][1]]


def layer_products(spec: ModelSpec) -> dict[str, tuple[int, int]]:
    """Return {name: (n, k)} of every product that a layer of `spec` may have; (0, 0) where it has none."""
    found = dict.fromkeys(PRODUCTS, (0, 0))
    hidden, mla = spec.hidden_size, spec.mla
    if mla is None:
        found["qkv projection"] = (spec.query_size + 2 * spec.kv_size, hidden)
        found["attention output"] = (hidden, spec.query_size)
    else:
        query = spec.num_heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        if mla.q_lora_rank:
            found["query down"] = (mla.q_lora_rank, hidden)
        found["query up"] = (query, mla.q_lora_rank or hidden)
        found["key value down"] = (mla.kv_lora_rank + mla.qk_rope_head_dim, hidden)
        found["key value up"] = (spec.num_heads * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank)
        found["attention output"] = (hidden, spec.num_heads * mla.v_head_dim)
    if layer_counts(spec)[0]:
        found["mlp up"], found["mlp down"] = _feed_forward(mlp_linears(spec))
    if spec.moe is not None:
        found["router"] = (spec.moe.num_experts, hidden)
        found["expert up"], found["expert down"] = _feed_forward(expert_linears(spec))
        if spec.moe.num_shared_experts:
            width = spec.moe.shared_expert_ffn_size
            found["shared expert up"] = (width * (2 if spec.gated_mlp else 1), hidden)
            found["shared expert down"] = (hidden, width)
    if spec.encoder is not None:
        found["cross query"], found["cross output"] = (spec.query_size, hidden), (hidden, spec.query_size)
        found["cross key value"] = (2 * spec.kv_size, hidden)
    if spec.diffusion is not None:
        found["modulation"] = (6 * hidden, hidden)
    return found


def num_parameter_tensors(model: ModelSpec) -> int:
    """Return the number of separate parameter tensors (experts of one layer count as one)."""
    norm = 2 if model.norm == "layernorm" and model.norm_bias else 1
    biases = int(model.attention_bias) + int(model.attention_output_bias) + 2 * int(model.mlp_bias)
    experts = 5 if model.moe else 0
    layer = 4 + experts + biases + 2 * norm + (2 * norm if model.qk_norm else 0) + 2 * int(model.diffusion is not None)
    crossed = model.num_layers * (4 + norm) if model.encoder else 0
    ends = norm + 1 + int(model.position in ("learned", "relative")) + int(not model.tied_embeddings)
    return all_layers(model) * layer + crossed + ends


def _feed_forward(linears: tuple) -> tuple[tuple[int, int], tuple[int, int]]:  # type: ignore[type-arg]
    *up, down = linears
    return (sum(linear.outputs for linear in up), up[0].inputs), (down.outputs, down.inputs)


def mean_keys(model: ModelSizes, seq_len: Array, causal: Array) -> Array:
    """Return the mean number of keys that a query meets, over layers with and without a window."""
    windowed = model.window_layers / model.num_layers
    whole = attended_tokens(seq_len, np.zeros_like(model.window), causal)
    return (1.0 - windowed) * whole + windowed * attended_tokens(seq_len, model.window, causal)


def attended_tokens(seq_len: Array, window: Array, causal: Array) -> Array:
    """Return the mean number of keys that a query meets: s (full), s/2 (causal), or less with a sliding window.

    With a window w < s and a causal mask: w - w^2 / 2s, the area of the band over the number of queries.
    """
    width = np.where(window > 0, np.minimum(window, seq_len), seq_len)
    banded = width - width * width / (2.0 * seq_len)
    return np.where(causal > 0, banded, np.where(window > 0, np.minimum(2.0 * width, seq_len), seq_len))
