"""ZeRO inside the mesh: weights, gradients and optimizer states cut over the data- and context-parallel ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from gnomon.spec import Layout
from gnomon.strategy.mesh.decoder import Chunk
from gnomon.strategy.mesh.grid import Grid


def shard_weights(chunks: Iterable[Chunk], layout: Layout, grid: Grid) -> list[FSDPModule]:
    """Shard each block of the chunks and the rest of each chunk; return the chunks.

    Experts are shared among the ranks that have the same ones; experts that one rank alone has are left as they are.
    """
    hybrid = layout.shard_ranks is not None and layout.shard_ranks < layout.dp * layout.cp
    options: dict[str, Any] = {
        "mesh": grid.weights["replicate", "shard"] if hybrid else grid.weights["shard"],
        "reshard_after_forward": layout.zero_stage == 3,
    }
    roots: list[FSDPModule] = []
    for chunk in chunks:
        unshared: set[nn.Parameter] = set()
        for block in chunk.blocks:
            experts = getattr(block.mlp, "experts", None)
            if isinstance(experts, nn.Module):
                if layout.expert_dp > 1:
                    _shard_experts(experts, layout, grid)
                else:
                    unshared.update(experts.parameters())
            fully_shard(block, **options, ignored_params=unshared)
        # the last gathered is the first that backward needs, so the root keeps its own weights
        roots.append(fully_shard(chunk, **{**options, "reshard_after_forward": False}, ignored_params=unshared))
    return roots


def _shard_experts(experts: nn.Module, layout: Layout, grid: Grid) -> None:
    sharded = fully_shard(experts, mesh=grid.experts["replicate"], reshard_after_forward=layout.zero_stage == 3)
    # their gradients come from all tokens of the expert-parallel ranks, but the loss is the mean over dp x cp batches
    sharded.set_gradient_divide_factor(layout.dp * layout.cp)
    sharded.set_force_sum_reduction_for_comms(True)  # gloo has no sum that scales
