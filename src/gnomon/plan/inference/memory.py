"""Memory of one rank of a served model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases, product_ways
from gnomon.plan.inference.cache import cached_tokens, kv_elements
from gnomon.plan.inference.operators import Bytes
from gnomon.plan.inference.workload import InferenceWorkload
from gnomon.plan.sizes import held_copies
from gnomon.spec import ModelSpec

FP32_BYTES = 4.0


@dataclass(frozen=True, kw_only=True)
class ServingMemory:
    """Bytes of the rank that needs the most. `cache_per_sequence` and `logits_per_sequence` grow with the batch of a
    replica, `prompt` with the prompts that it prefills together, `prefill_batch` at most."""

    weights: float
    cache_per_sequence: float
    logits_per_sequence: float
    prompt: float
    prefill_batch: int
    framework: float

    def activations(self, batch: Array) -> Array:
        """Return the bytes of activations and logits with `batch` sequences."""
        return np.minimum(batch, self.prefill_batch) * self.prompt + batch * self.logits_per_sequence

    def total(self, batch: Array) -> Array:
        """Return the bytes with `batch` sequences at their full length."""
        return self.weights + self.framework + batch * self.cache_per_sequence + self.activations(batch)

    def max_batch(self, capacity_bytes: float) -> int:
        """Return the most sequences that fit; zero when not even the weights do."""
        left = capacity_bytes - self.weights - self.framework
        each = self.cache_per_sequence + self.logits_per_sequence
        few, many = left // (each + self.prompt), (left - self.prefill_batch * self.prompt) // each
        return max(int(few if few < self.prefill_batch else many), 0)


def serving_memory(model: ModelSpec, cases: Cases, workload: InferenceWorkload, sizes: Bytes) -> ServingMemory:
    """Return the memory of a rank of the pipeline stage that holds the most layers and the head."""
    split, compute = cases.split, float(cases.storage.compute_bytes[0])
    tp, pp = int(split.tp[0]), int(split.pp[0])
    layers = np.ceil(model.num_layers / pp)
    cache = layers * kv_elements(model, tp) * sizes.cache * float(cached_tokens(model, workload.total_len))
    return ServingMemory(
        weights=float(rank_weights_bytes(cases, sizes)[0]),
        cache_per_sequence=float(cache),
        logits_per_sequence=model.vocab_size / tp * FP32_BYTES,
        prompt=workload.prompt_len * _widest_elements(cases) * compute,
        prefill_batch=workload.prefill_batch,
        framework=float(cases.storage.framework_bytes[0]),
    )


def rank_weights_bytes(cases: Cases, sizes: Bytes) -> Array:
    """Return the bytes of the weights of one rank of the largest pipeline stage."""
    model, split, wide = cases.model, cases.split, cases.storage.compute_bytes
    fraction = np.ceil(model.num_layers / split.pp) / model.num_layers
    matrices, counted = np.zeros(1), np.zeros(1)
    for name, (n, k) in model.products.items():
        elements = n * k * held_copies(model, name)
        counted = counted + elements
        matrices = matrices + elements / product_ways(cases, name)
    vectors = model.parameters - model.embedding_parameters - model.head_parameters - counted
    head = np.maximum(model.head_parameters, model.vocab * model.hidden)  # a tied head is a copy on its own stage
    one_stage = model.embedding_parameters + model.head_parameters
    end = np.where(split.pp > 1, np.maximum(model.embedding_parameters, head), one_stage)
    return fraction * (matrices * sizes.weights + np.maximum(vectors, 0.0) * wide) + end / split.tp * wide


def _widest_elements(cases: Cases) -> float:
    """Return the elements per token that are alive together at the widest place of a layer's forward pass."""
    model, split = cases.model, cases.split
    feed_forward = (1.0 + model.gated) * np.maximum(
        np.where(model.dense_layers > 0, model.ffn, model.shared_ffn) / split.tp,
        model.expert_ffn * model.top_k / split.expert_tp / split.ep,
    )
    attention = (2.0 * model.query + 2.0 * model.key_value) / split.tp
    return float((2.0 * model.hidden + np.maximum(feed_forward, attention))[0])
