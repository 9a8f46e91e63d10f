"""How sources count the FLOPs behind a TFLOP/s or an MFU figure, and the FLOPs of a token in each way of counting.

All count 6 FLOPs per weight of a matrix product with the output head. They differ in attention (over the full square,
half of it, or not at all), in the weights of embeddings, and in whether what is computed again counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.flops import model_flops_per_token
from gnomon.plan.sizes import ModelSizes

_NO_TOKENS = 1e-9  # a sequence so short that attention counts nothing


class Convention(NamedTuple):
    """A way of counting. `recompute` is part of a TFLOP/s figure or of an HFU, never of an MFU."""

    attention: Literal["full", "causal", "none"]
    embeddings: bool = False
    recompute: bool = False

    def __str__(self) -> str:
        parts = [f"attention {self.attention}"]
        parts += ["embeddings counted"] * self.embeddings + ["recomputation counted"] * self.recompute
        return ", ".join(parts)


OURS = Convention("causal")


def convention_of(text: str) -> Convention | None:
    """Return the convention that a sentence describes, None when it leaves attention open.

    Megatron's formula, 96 B s l h^2 (1 + s/6h + V/16lh), counts the full square and recomputation (arXiv 2104.04473,
    equation 3); with 72 instead of 96, or a factor of 3, it leaves recomputation out. PaLM's, 6N + 12 l h q s per
    token (arXiv 2204.02311, appendix B), counts the full square.
    """
    words = text.lower()
    if not words or "lora" in words:
        return None
    recompute = bool(
        re.search(r"\b96\s*\*?\s*b?\s*\*?\s*[ls]|ckpt_factor\(4\)|recompute counted|incl\. full|x 4/3 recompute", words)
    )
    embeddings = bool(re.search(r"incl(?:\.|uding) (?:the )?embedding", words))
    if re.search(r"4\s*\*\s*2\s*\*\s*p\b|\b8\s*\*?\s*p\s*\*", words):
        return Convention("none", embeddings=True, recompute=True)
    attention = _attention(words)
    return None if attention is None else Convention(attention, embeddings, recompute)


def _attention(words: str) -> Literal["full", "causal", "none"] | None:
    if re.search(r"not stated\)|between", words):
        return None
    if re.search(r"no attention|attention (?:is )?not counted|without attention", words):
        return "none"
    not_causal = (
        r"non[ -]?causal|(?:\bno|\bnot|without|ignor\w+)(?: the)? causal|causal (?:\w+ )?(?:is |are )?(?:not|ignored)"
    )
    if re.search(rf"{not_causal}|full attention|full attn|attention full|\bfull\)?$|full square", words):
        return "full"
    if re.search(r"causal|half", words):
        return "causal"
    megatron = r"\b(?:96|72)\s*\*?\s*b?\s*\*?\s*[ls]|ckpt_factor|s/6h"
    palm = r"12\s*\*?\s*l\s*\*?\s*(?:h|d)|palm"
    return "full" if re.search(f"{megatron}|{palm}", words) else None


@dataclass(frozen=True, kw_only=True)
class TokenFlops:
    """FLOPs of forward and backward per token by part, arrays over cases."""

    products: Array
    head: Array
    full_attention: Array
    causal_attention: Array
    embeddings: Array

    @classmethod
    def of(cls, model: ModelSizes, seq_len: Array) -> TokenFlops:
        """Return the parts for sequences of `seq_len`."""
        none, causal = np.zeros(1), np.ones(1)
        products = model_flops_per_token(model, np.full(1, _NO_TOKENS), none)
        table = model.vocab * model.hidden
        return cls(
            products=products,
            head=6.0 * table * (1.0 + model.mtp_layers),
            full_attention=model_flops_per_token(model, seq_len, none) - products,
            causal_attention=model_flops_per_token(model, seq_len, causal) - products,
            # a tied table is the head, which counts already
            embeddings=6.0 * (model.embedding_parameters + model.head_parameters - table),
        )

    def count(self, convention: Convention, recompute: bool = False) -> Array:
        """Return the FLOPs that `convention` counts; with `recompute` also a second forward pass of the layers."""
        attention = {
            "full": self.full_attention,
            "causal": self.causal_attention,
            "none": np.zeros_like(self.products),
        }[convention.attention]
        again = (self.products - self.head + attention) / 3.0 if recompute else 0.0
        return self.products + attention + again + (self.embeddings if convention.embeddings else 0.0)
