"""Rows that compute some products of every layer again: Megatron-Core's modules, MaxText's policies.

Modules leave attention alone. A policy that does not keep what attention returns is priced as if a part of the layers
were computed again whole.
"""

from __future__ import annotations

import re

from gnomon.plan.parameters import (
    attention_linears,
    expert_linears,
    layer_counts,
    mlp_linears,
    shared_expert_linears,
)
from gnomon.spec import ModelSpec
from gnomon.spec.layout import Recompute

WHOLE = ("qkv", "out", "up", "down")
# what Megatron-Core's recompute_modules compute again: products by part, or passes of memory that are not priced apart
MODULES = {
    r"\bmlp\b": ("dense",),  # of layers without experts
    r"\bmoe\b": ("experts",),
    r"shared_experts?": ("shared",),
    r"mla_up_proj": ("latent",),
    r"layer_?norm": (),
    r"moe_act": (),
}
SHORT = r"(?:fine[- ]grained\W*)?(?:(?:norm|act)\b\W*)+"  # the same two in NVIDIA's tables
# what MaxText's policies keep of the products: all else of the layer is computed again; "context" is what attention
# returns
CONTEXT = r"\bcontext\s*[=:]\s*(?:device|offload|save)|save_\w*context|with_context"
KEPT = {
    r"qkv_proj|query_proj|key_proj|value_proj": ("qkv",),
    r"out_proj": ("out",),
    r"(?<!except_)mlpwi|mlp_?up": ("up",),
    r"mlpwo|mlp_?down": ("down",),
    r"save_dot\w*except_mlp(?!wi)": ("qkv", "out"),
    r"save_dot\w*except_mlpwi": ("qkv", "out", "down"),
}


def some_products(
    stated: str, model: ModelSpec, remarks: list[str], stops_early: bool = False
) -> tuple[Recompute, float] | None:
    """Return (what is recomputed, share of the layers) where the text names modules or tensors, else None."""
    weights = _product_weights(model, stops_early)
    layer = sum(weights[part] for part in WHOLE)
    kept = _named({f"(?:{words})(?!\\w*\\W{{0,3}}remat)": parts for words, parts in KEPT.items()}, stated)
    attended = bool(re.search(CONTEXT, stated))
    if kept or (attended and not re.search(r"minimal", stated)):
        again = _rounded(sum(weights[part] for part in WHOLE if part not in kept) / layer)
        return ("products" if attended else "full"), again
    if attended:
        return "none", 1.0  # all products and attention are kept
    if re.search(r"\bfull\b", stated):
        return None
    again = sum(weights[part] for part in _named(MODULES, stated))
    if again:
        return "products", _rounded(again / layer)
    if re.search(r"core[ _]att(?:n|ention)", stated):
        return "selective", 1.0
    if any(re.search(words, stated) for words in MODULES) or re.fullmatch(SHORT, stated):
        remarks.append(f"recompute {stated!r} computes no product again: priced as none")
        return "none", 1.0
    return None


def _named(table: dict[str, tuple[str, ...]], stated: str) -> set[str]:
    return {part for words, parts in table.items() if re.search(words, stated) for part in parts}


def _rounded(share: float) -> float:
    return min(1.0, max(0.01, round(share, 2)))


def _product_weights(model: ModelSpec, stops_early: bool) -> dict[str, float]:
    """Return the weights that a token meets in an average layer: of the WHOLE parts, and of some that lie in these.

    With `stops_early` a dense layer's last product is never computed again.
    """
    *attention, out = attention_linears(model)
    dense, sparse = layer_counts(model)
    active = model.moe.experts_per_token if model.moe else 0
    layers, shared = dense + sparse, shared_expert_linears(model)
    mlp = mlp_linears(model)
    feed = [(dense, mlp), (sparse * active, expert_linears(model)), (sparse, shared)]
    weights = {
        "qkv": sum(x.weights for x in attention),
        "out": out.weights,
        "up": sum(count * x.weights for count, linears in feed for x in linears[:-1]) / layers,
        "down": sum(count * x.weights for count, linears in feed for x in linears[-1:]) / layers,
        "dense": dense * sum(x.weights for x in mlp) / layers,
        "shared": sparse * sum(x.weights for x in shared) / layers,
        "latent": sum(x.weights for x in attention if model.mla and x.inputs != model.hidden_size),
    }
    weights["experts"] = weights["up"] + weights["down"] - weights["dense"]
    last = dense * mlp[-1].weights / layers * stops_early
    return {**weights, "down": weights["down"] - last, "dense": weights["dense"] - last}
