"""The counted parameters are those that the trained network has."""

from __future__ import annotations

import itertools

import pytest

from gnomon.plan.parameters import count_parameters
from gnomon.spec import ModelSpec

torch = pytest.importorskip("torch", reason="PyTorch is not installed; the network cannot be built")

SIZES = {"num_layers": 2, "hidden_size": 24, "num_heads": 4, "vocab_size": 50, "max_seq_len": 32}
GPT2 = {**SIZES, "norm_bias": True, "attention_bias": True, "attention_output_bias": True, "mlp_bias": True}
LLAMA = {
    **SIZES,
    "num_kv_heads": 2,
    "ffn_hidden_size": 40,
    "activation": "silu",
    "gated_mlp": True,
    "norm": "rmsnorm",
    "position": "rope",
    "tied_embeddings": False,
}
VARIANTS = [
    {**base, **dict(zip(("tied_embeddings", "qk_norm", "norm_bias", "mlp_bias", "head_dim"), values, strict=True))}
    for base in (GPT2, LLAMA)
    for values in itertools.product((True, False), (True, False), (True, False), (True, False), (6, 8))
]


@pytest.mark.parametrize("fields", [GPT2, LLAMA, *VARIANTS])
def test_count_equals_the_network(fields):
    from gnomon.train.gpt import GPT

    spec = ModelSpec(**fields)
    with torch.device("meta"):
        network = GPT(spec)
    assert count_parameters(spec).total == sum(parameter.numel() for parameter in network.parameters())
