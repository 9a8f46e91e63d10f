"""Expert parallelism: each rank has some of the experts, and tokens travel to theirs and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor


def split_experts(mixture: nn.Module, mesh: DeviceMesh) -> None:
    """Leave each rank of a one-dimensional mesh its share of the experts of a mixture, and let tokens reach them."""
    experts = mixture.experts
    assert isinstance(experts, nn.Module)
    for name, parameter in list(experts.named_parameters(recurse=False)):
        part = distribute_tensor(parameter.detach(), mesh, [Shard(0)], src_data_rank=None)
        experts.register_parameter(name, nn.Parameter(part, requires_grad=parameter.requires_grad))
    if mesh.size() > 1:
        mixture.exchange = TokenExchange(mesh.get_group())


class TokenExchange(nn.Module):
    """Brings tokens to the ranks of their experts, however many there are for each, and the results back."""

    def __init__(self, group: ProcessGroup) -> None:
        super().__init__()
        self._group = group
        self._ranks = dist.get_world_size(group)

    def forward(self, rows: Tensor, counts: Tensor, experts: Callable[[Tensor, list[int]], Tensor]) -> Tensor:
        """Return the experts' outputs of `rows`, which are sorted by expert; `counts` is the number for each."""
        sent = counts.view(self._ranks, -1)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self._group)
        send_sizes, receive_sizes = torch.stack([sent.sum(1), received.sum(1)]).tolist()
        arrived = _Exchange.apply(rows, send_sizes, receive_sizes, self._group)
        order = _by_expert(received)
        outputs = experts(arrived[order], received.sum(0).tolist())
        returned = torch.empty_like(outputs).index_copy(0, order, outputs)
        result: Tensor = _Exchange.apply(returned, receive_sizes, send_sizes, self._group)
        return result


def _by_expert(received: Tensor) -> Tensor:
    """Return the order that sorts rows from by rank, then expert to by expert, then rank; `received` counts them."""
    ranks, experts = received.shape
    expert_of_row = torch.arange(experts, device=received.device).repeat(ranks).repeat_interleave(received.flatten())
    return expert_of_row.argsort(stable=True)


class _Exchange(Function):
    """The next `send_sizes[i]` rows go to rank i; their gradients come back the same way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, send_sizes: list[int], receive_sizes: list[int], group: ProcessGroup) -> Tensor:
        ctx.sizes, ctx.group = (send_sizes, receive_sizes), group
        received = rows.new_empty((sum(receive_sizes), *rows.shape[1:]))
        dist.all_to_all_single(received, rows.contiguous(), receive_sizes, send_sizes, group=group)
        return received

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        send_sizes, receive_sizes = ctx.sizes
        return _Exchange.apply(gradient, receive_sizes, send_sizes, ctx.group), None, None, None
