"""The grid of ranks: one reshape to (pp, dp, cp, tp) with tp fastest, and the groups that are its slices."""

from __future__ import annotations

import torch
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from gnomon.spec import Layout


class Grid:
    """The meshes of a layout. Building it is a collective call.

    `ranks` (pp, dp, cp, tp) says who computes what; `weights` (pp, replicate, shard, tp) who holds which part of the
    dense weights, with replicate x shard = dp x cp; `experts` (pp, replicate, ep) who holds which experts.
    """

    def __init__(self, layout: Layout, device_type: str) -> None:
        shard = 1 if layout.zero_stage == 0 else layout.shard_ranks or layout.dp * layout.cp
        replicate = layout.dp * layout.cp // shard
        self.layout = layout
        self.ranks = init_device_mesh(
            device_type, (layout.pp, layout.dp, layout.cp, layout.tp), mesh_dim_names=("pp", "dp", "cp", "tp")
        )
        self.weights = init_device_mesh(
            device_type,
            (layout.pp, replicate, shard, layout.tp),
            mesh_dim_names=("pp", "replicate", "shard", "tp"),
        )
        self._device_type = device_type
        self._experts: DeviceMesh | None = None

    @property
    def experts(self) -> DeviceMesh:
        """The mesh of the experts; the first use is a collective call."""
        if self._experts is None:
            shape = (self.layout.pp, self.layout.expert_dp, self.layout.ep)
            self._experts = init_device_mesh(self._device_type, shape, mesh_dim_names=("pp", "replicate", "ep"))
        return self._experts

    def index(self, dimension: str) -> int:
        """Return this rank's place along a dimension of `ranks`."""
        return self.ranks.get_local_rank(dimension)

    def group(self, dimension: str) -> ProcessGroup:
        """Return the ranks that differ from this one along a dimension of `ranks` alone."""
        return self.ranks.get_group(dimension)

    def ends_of_pipelines(self) -> ProcessGroup | None:
        """Return the group of the first and the last stage of this rank's pipeline, None on stages between.

        A collective call over all ranks.
        """
        grid: torch.Tensor = self.ranks.mesh.flatten(1)
        mine = None
        for first, last in zip(grid[0].tolist(), grid[-1].tolist(), strict=True):
            group = torch.distributed.new_group([first, last])
            if torch.distributed.get_rank() in (first, last):
                mine = group
        return mine
