"""What happens to gradients between the last backward pass and the optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Replicas:
    """Parameters that the ranks of `group` all have; their gradients are added up and divided by `divisor`."""

    parameters: list[nn.Parameter]
    group: ProcessGroup
    divisor: int


def gather_partial(parameters: Iterable[nn.Parameter]) -> None:
    """Add up gradients of which tensor-parallel ranks have only their summands, so that they lie as the parameters."""
    for parameter in parameters:
        gradient = parameter.grad
        if not isinstance(gradient, DTensor) or not isinstance(parameter, DTensor):
            continue
        if gradient.placements != parameter.placements:
            parameter.grad = gradient.redistribute(placements=parameter.placements)


def average(replicas: Replicas) -> None:
    """Replace the gradients by their average over the replicas, with one message for each data type."""
    gradients = [local(p.grad) for p in replicas.parameters if p.grad is not None]
    for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
        same = [gradient for gradient in gradients if gradient.dtype == dtype]
        if dist.get_world_size(replicas.group) == 1:
            if replicas.divisor != 1:
                torch._foreach_div_(same, replicas.divisor)
            continue
        buffer = torch.cat([gradient.reshape(-1) for gradient in same])
        dist.all_reduce(buffer, group=replicas.group)
        buffer /= replicas.divisor
        parts = buffer.split([gradient.numel() for gradient in same])
        torch._foreach_copy_(same, [part.view_as(g) for part, g in zip(parts, same, strict=True)])


def clip(parameters: list[nn.Parameter], max_norm: float, copies: dict[nn.Parameter, int]) -> Tensor:
    """Scale the gradients so that their norm over all ranks is at most `max_norm`; return the norm before.

    `copies` is the number of ranks that have the same part of a parameter: each part is counted once.
    """
    owned = [p for p in parameters if p.grad is not None]
    gradients = [local(p.grad) for p in owned if p.grad is not None]
    squares = torch.stack(torch._foreach_norm(gradients)).double().square()
    weights = torch.tensor([copies[p] for p in owned], device=squares.device, dtype=squares.dtype)
    total = (squares / weights).sum()
    dist.all_reduce(total)
    norm = total.sqrt().float()
    torch._foreach_mul_(gradients, torch.clamp(max_norm / (norm + 1e-6), max=1.0))
    return norm


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor; it shares the memory."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor
