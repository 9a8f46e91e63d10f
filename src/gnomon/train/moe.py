"""The mixture-of-experts feed-forward layer: no token is dropped, and no auxiliary loss is added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gnomon.spec import ModelSpec
from gnomon.train.feed_forward import MLP, gated_activation


class MoE(nn.Module):
    """Sends each token to its `experts_per_token` best experts and adds the shared experts.

    The router is a softmax in fp32 over the chosen experts (Mixtral, arXiv 2401.04088): their weights add up to one.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        moe = spec.moe
        assert moe is not None  # only built for specs with experts
        self.experts_per_token, self.num_experts = moe.experts_per_token, moe.num_experts
        self.router = nn.Linear(spec.hidden_size, moe.num_experts, bias=moe.router_bias)
        self.experts = Experts(spec)
        self.shared = MLP(spec, moe.shared_expert_ffn_size, moe.expert_bias) if moe.num_shared_experts else None
        self.shared_gate = nn.Linear(spec.hidden_size, 1, bias=False) if moe.shared_expert_gate else None
        self.exchange: nn.Module = NoExchange()

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (batch, sequence, hidden)."""
        weights, chosen = self._route(x)
        tokens = x.flatten(0, 1)
        # stable: tokens of one expert keep their order, so that the sums do not depend on the sorting algorithm
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=self.num_experts)
        rows = self.exchange(tokens[order // self.experts_per_token], counts, self.experts)
        unsorted = torch.empty_like(rows).index_copy(0, order, rows)
        parts = unsorted.unflatten(0, (-1, self.experts_per_token)) * weights.flatten(0, 1)[..., None].to(rows.dtype)
        output = parts.sum(1).view_as(x)
        if self.shared is None:
            return output
        shared = self.shared(x)
        return output + (shared if self.shared_gate is None else torch.sigmoid(self.shared_gate(x)) * shared)

    def _route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights and indices of the chosen experts, (batch, sequence, experts_per_token) each."""
        with torch.autocast(x.device.type, enabled=False):
            logits, chosen = self.router(x.float()).topk(self.experts_per_token, dim=-1)
            return logits.softmax(-1), chosen


class Experts(nn.Module):
    """All routed experts of a layer, their matrices stacked.

    `up` (experts, width, hidden), `down` (experts, hidden, width); rows of a gated `up` alternate between gate and
    value.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        moe = spec.moe
        assert moe is not None  # only built for specs with experts
        self.activation, self.is_gated = spec.activation, spec.gated_mlp
        width = moe.expert_ffn_size * (2 if spec.gated_mlp else 1)
        self.up = nn.Parameter(torch.empty(moe.num_experts, width, spec.hidden_size))
        self.down = nn.Parameter(torch.empty(moe.num_experts, spec.hidden_size, moe.expert_ffn_size))
        self.up_bias = nn.Parameter(torch.empty(moe.num_experts, width)) if moe.expert_bias else None
        self.down_bias = nn.Parameter(torch.empty(moe.num_experts, spec.hidden_size)) if moe.expert_bias else None

    def forward(self, rows: Tensor, counts: list[int]) -> Tensor:
        """Return the outputs of `rows` (tokens, hidden), of which expert i has the next `counts[i]`."""
        ups, downs = _unbind(self.up), _unbind(self.down)
        up_biases = [None] * len(ups) if self.up_bias is None else _unbind(self.up_bias)
        down_biases = [None] * len(ups) if self.down_bias is None else _unbind(self.down_bias)
        outputs = []
        for part, up, down, up_bias, down_bias in zip(
            rows.split(counts), ups, downs, up_biases, down_biases, strict=True
        ):
            hidden = gated_activation(F.linear(part, up, up_bias), self.activation, self.is_gated)
            outputs.append(F.linear(hidden, down, down_bias))
        return torch.cat(outputs)


class NoExchange(nn.Module):
    """This rank has all experts."""

    def forward(self, rows: Tensor, counts: Tensor, experts: Callable[[Tensor, list[int]], Tensor]) -> Tensor:
        """Return the experts' outputs of `rows`, which are sorted by expert; `counts` is the number for each."""
        return experts(rows, counts.tolist())


def _unbind(weights: Any) -> Any:
    """Return the matrices of this rank's experts."""
    return (weights.to_local() if hasattr(weights, "to_local") else weights).unbind(0)
