"""Pipeline parallelism: which rank has which layers, and the schedules of torch.distributed.pipelining."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleZBVZeroBubble,
)
from torch.distributed.tensor import DTensor, Shard

from gnomon.spec import Layout
from gnomon.strategy.mesh.decoder import SplitModel

Step = Callable[[Any], Tensor]


def layers_of_stages(num_layers: int, layout: Layout) -> list[range]:
    """Return the layers of each stage, in order; the layout was checked to allow it."""
    stages = num_stages(layout)
    first, last = layout.first_stage_layers, layout.last_stage_layers
    inner = stages - (first is not None) - (last is not None)
    each = (num_layers - (first or 0) - (last or 0)) // max(1, inner)
    counts = [each] * stages
    counts[0] = each if first is None else first
    counts[-1] = each if last is None else last
    ends = [sum(counts[: stage + 1]) for stage in range(stages)]
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]


def num_stages(layout: Layout) -> int:
    """Return the number of stages over all ranks of a pipeline."""
    return layout.pp * (2 if layout.schedule == "zb-v" else layout.vpp) if layout.pp > 1 else 1


def rank_of_stage(stage: int, layout: Layout) -> int:
    """Return the pipeline rank that has a stage: round and round, or for zb-v there and back."""
    if layout.schedule == "zb-v" and stage >= layout.pp:
        return 2 * layout.pp - 1 - stage
    return stage % layout.pp


class Pipeline:
    """Runs micro-batches through the stages of all ranks of a pipeline.

    Its losses are multiplied by the number of ranks on the last stage and zero elsewhere, so that their mean over the
    ranks is the loss.
    """

    def __init__(
        self,
        model: SplitModel,
        hidden_size: int,
        layout: Layout,
        group: ProcessGroup,
        device: torch.device,
        logits_mesh: DeviceMesh | None,
    ) -> None:
        self._model, self._hidden_size = model, hidden_size
        self._layout, self._group, self._device = layout, group, device
        self._logits_mesh = logits_mesh  # over which the logits are cut along the vocabulary
        self._batches: list[Any] = []
        self._training_step: Step | None = None
        self._schedules: dict[tuple[int, torch.Size], Any] = {}

    def run(self, training_step: Step, batches: list[Any]) -> Tensor:
        """Add the gradients of the micro-batches and return their mean loss times the ranks; the first item is x."""
        schedule = self._schedule(len(batches), batches[0][0].shape)
        self._batches, self._training_step = batches, training_step
        inputs = (torch.cat([batch[0] for batch in batches]),) if 0 in self._model.chunks else ()
        losses: list[Tensor] = []
        schedule.step(*inputs, target=torch.arange(len(batches)), losses=losses, return_outputs=False)
        self._batches = []
        return self._spread(torch.stack(losses).sum().detach() if losses else None)

    @torch.no_grad()
    def evaluate(self, validation_step: Step, batch: Any) -> Tensor:
        """Return the loss of one micro-batch times the ranks, without gradients."""
        mine, stages = dist.get_rank(self._group), num_stages(self._layout)
        x = batch[0]
        for stage in range(stages):
            if rank_of_stage(stage, self._layout) != mine:
                continue
            before, after = (rank_of_stage(s, self._layout) for s in (max(0, stage - 1), min(stage + 1, stages - 1)))
            if stage > 0 and before != mine:
                x = torch.empty(self._hidden_shape(batch[0].shape), device=self._device)
                dist.recv(x, group=self._group, group_src=before)
            x = self._model.chunks[stage](x)
            if stage < stages - 1 and after != mine:
                dist.send(x.contiguous(), group=self._group, group_dst=after)
        has_logits = stages - 1 in self._model.chunks
        return self._spread(self._loss_of(validation_step, x, batch) if has_logits else None)

    def _spread(self, loss: Tensor | None) -> Tensor:
        return torch.zeros((), device=self._device) if loss is None else loss * self._layout.pp

    def _loss(self, output: Tensor, index: Tensor) -> Tensor:
        assert self._training_step is not None  # set by run
        return self._loss_of(self._training_step, output, self._batches[int(index)]) / len(self._batches)

    def _loss_of(self, step: Step, output: Tensor, batch: Any) -> Tensor:
        if self._logits_mesh is not None and not isinstance(output, DTensor):
            output = DTensor.from_local(output, self._logits_mesh, [Shard(2)], run_check=False)
        self._model.output = output
        try:
            return step(batch)
        finally:
            self._model.output = None

    def _hidden_shape(self, tokens: torch.Size) -> tuple[int, int, int]:
        layout = self._layout
        return tokens[0], tokens[1] // (layout.tp if layout.sequence_parallel else 1), self._hidden_size

    def _schedule(self, count: int, tokens: torch.Size) -> Any:
        if (count, tokens) not in self._schedules:
            stages: list[Any] = [self._stage(stage, tokens) for stage in self._model.chunks]
            options: dict[str, Any] = {"n_microbatches": count, "loss_fn": self._loss, "scale_grads": False}
            kind = self._layout.schedule
            if kind == "zb-v":
                made: Any = ScheduleZBVZeroBubble(stages, **options)
            elif kind == "zb-h1":
                made = ScheduleInterleavedZeroBubble(stages, **options)
            elif self._layout.vpp > 1:
                made = ScheduleInterleaved1F1B(stages, **options)
            else:
                made = (ScheduleGPipe if kind == "gpipe" else Schedule1F1B)(stages[0], **options)
            self._schedules[count, tokens] = made
        return self._schedules[count, tokens]

    def _stage(self, stage: int, tokens: torch.Size) -> PipelineStage:
        """Return a stage that knows its shapes, so that nothing has to be run to find them."""
        hidden = torch.empty(self._hidden_shape(tokens), device="meta", requires_grad=True)
        first = torch.empty(tokens, dtype=torch.int64, device="meta")
        return PipelineStage(
            self._model.chunks[stage],
            stage,
            num_stages(self._layout),
            self._device,
            input_args=(first if stage == 0 else hidden,),
            output_args=(hidden,),  # of the last stage nobody asks it
            group=self._group,
        )
