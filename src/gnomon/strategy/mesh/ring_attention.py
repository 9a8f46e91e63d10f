"""Ring attention (arXiv 2310.01889): keys and values travel round the ranks, each of which keeps its queries."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed import ProcessGroup

_aten = torch.ops.aten


class RingAttention(nn.Module):
    """Causal attention over sequences of which rank i has piece i from the start and piece i from the end."""

    def __init__(self, group: ProcessGroup) -> None:
        super().__init__()
        self._group = group

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return the result (batch, heads, part of the sequence, head_dim); `key` and `value` may have fewer heads."""
        if torch.is_autocast_enabled(query.device.type):
            dtype = torch.get_autocast_dtype(query.device.type)
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        copies = query.shape[1] // key.shape[1]
        result: Tensor = _Ring.apply(query.contiguous(), key.contiguous(), value.contiguous(), copies, self._group)
        return result


class _Block(NamedTuple):
    """What of the queries meets what of the keys of one rank, in halves of the sequence."""

    queries: slice
    keys: slice
    is_causal: bool


class _Ring(Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, copies: int, group: ProcessGroup) -> Tensor:
        rank, ranks = dist.get_rank(group), dist.get_world_size(group)
        out = torch.zeros_like(query, dtype=torch.float32)
        lse = torch.full(query.shape[:-1], -torch.inf, device=query.device, dtype=torch.float32)
        travelling = torch.stack([key, value])
        for step in range(ranks):
            block = _block(rank, (rank - step) % ranks, query.shape[2])
            k, v = _repeated(travelling[:, :, :, block.keys], copies)
            part, part_lse = _attend(query[:, :, block.queries], k, v, block.is_causal)
            _merge(out[:, :, block.queries], lse[:, :, block.queries], part, part_lse)
            if step < ranks - 1:
                travelling = _pass_on(travelling, group)
        result = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, result, lse)
        ctx.copies, ctx.group = copies, group
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        rank, ranks = dist.get_rank(ctx.group), dist.get_world_size(ctx.group)
        d_query = torch.zeros_like(query, dtype=torch.float32)
        travelling = torch.stack([key, value])
        d_travelling = torch.zeros_like(travelling, dtype=torch.float32)  # travels with the keys that it belongs to
        gradient = gradient.contiguous()
        for step in range(ranks):
            block = _block(rank, (rank - step) % ranks, query.shape[2])
            k, v = _repeated(travelling[:, :, :, block.keys], ctx.copies)
            q, o, g = (x[:, :, block.queries].contiguous() for x in (query, out, gradient))
            dq, dk, dv = _attend_backward(g, q, k, v, o, lse[:, :, block.queries].contiguous(), block.is_causal)
            d_query[:, :, block.queries] += dq
            d_travelling[:, :, :, block.keys] += _summed(torch.stack([dk, dv]), ctx.copies)
            d_travelling = _pass_on(d_travelling, ctx.group)  # after the last step it is back at its owner
            if step < ranks - 1:
                travelling = _pass_on(travelling, ctx.group)
        d_key, d_value = d_travelling.to(key.dtype)
        return d_query.to(query.dtype), d_key, d_value, None, None


def _block(rank: int, owner: int, length: int) -> _Block:
    """Return what the queries of `rank` see of the keys of `owner`."""
    everything, first, second = slice(0, length), slice(0, length // 2), slice(length // 2, length)
    if owner == rank:
        return _Block(everything, everything, is_causal=True)
    if owner < rank:  # its first piece lies before both of ours, its second one after them
        return _Block(everything, first, is_causal=False)
    return _Block(second, everything, is_causal=False)  # both of its pieces lie before our second one


def _repeated(keys_values: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    key, value = keys_values.repeat_interleave(copies, 2) if copies > 1 else keys_values.contiguous()
    return key, value


def _summed(gradients: Tensor, copies: int) -> Tensor:
    return gradients.unflatten(2, (-1, copies)).float().sum(3) if copies > 1 else gradients.float()


def _attend(query: Tensor, key: Tensor, value: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Return the result and the logarithm of the sum of the exponentials, (batch, heads, queries)."""
    query = query.contiguous()
    if query.device.type == "cpu":
        out, lse = _aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, is_causal)
    elif query.dtype == torch.float32:
        out, lse, *_ = _aten._scaled_dot_product_efficient_attention(query, key, value, None, True, 0.0, is_causal)
    else:
        out, lse, *_ = _aten._scaled_dot_product_flash_attention(query, key, value, 0.0, is_causal)
    return out, lse[..., : query.shape[2]]


def _attend_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, is_causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value; `out` and `lse` are those over all keys, not this block alone."""
    if query.device.type == "cpu":
        dq, dk, dv = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient, query, key, value, out, lse, 0.0, is_causal
        )
        return dq, dk, dv
    none = torch.zeros((), dtype=torch.int64, device=query.device)  # the state of a generator that is not used
    if query.dtype == torch.float32:
        padded = nn.functional.pad(lse, (0, -lse.shape[-1] % 32), value=torch.inf)  # as the forward kernel returns it
        dq, dk, dv, _ = _aten._scaled_dot_product_efficient_attention_backward(
            gradient, query, key, value, None, out, padded, none, none, 0.0, [True, True, True, False], is_causal
        )
        return dq, dk, dv
    dq, dk, dv = _aten._scaled_dot_product_flash_attention_backward(
        gradient, query, key, value, out, lse, None, None, query.shape[2], key.shape[2], 0.0, is_causal, none, none
    )
    return dq, dk, dv


def _merge(out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> None:
    """Add the result over further keys to `out` and `lse`, in place."""
    total = torch.logaddexp(lse, part_lse)
    out.mul_((lse - total).exp()[..., None]).add_(part.float() * (part_lse - total).exp()[..., None])
    lse.copy_(total)


def _pass_on(tensor: Tensor, group: ProcessGroup) -> Tensor:
    """Send to the next rank of the ring and return what the one before sent."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    received = torch.empty_like(tensor)
    ring = [
        dist.P2POp(dist.isend, tensor.contiguous(), group=group, group_peer=(rank + 1) % ranks),
        dist.P2POp(dist.irecv, received, group=group, group_peer=(rank - 1) % ranks),
    ]
    for work in dist.batch_isend_irecv(ring):
        work.wait()
    return received
