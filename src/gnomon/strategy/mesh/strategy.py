"""The strategy that runs the planner's layouts: DP x CP x TP x PP x EP on one grid of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import loss_parallel
from torch.optim import Optimizer

from gnomon.errors import ConfigError, LayoutError
from gnomon.runtime.environment import RankEnvironment
from gnomon.spec import Layout
from gnomon.strategy.base import Tensors
from gnomon.strategy.collectives import copy_from_rank_zero
from gnomon.strategy.mesh import gradients
from gnomon.strategy.mesh.context_parallel import AllToAllAttention, SequenceShard
from gnomon.strategy.mesh.decoder import Chunk, Decoder, SplitModel, as_decoder, keep_stages
from gnomon.strategy.mesh.expert_parallel import split_experts
from gnomon.strategy.mesh.grid import Grid
from gnomon.strategy.mesh.pipeline import Pipeline, layers_of_stages, num_stages, rank_of_stage
from gnomon.strategy.mesh.ring_attention import RingAttention
from gnomon.strategy.mesh.sharding import shard_weights
from gnomon.strategy.mesh.tensor_parallel import cut_tokens, split_tensors
from gnomon.strategy.process_group import ProcessGroupStrategy

_DTYPES = {"bf16": torch.bfloat16}


class MeshStrategy(ProcessGroupStrategy):
    """Splits a decoder as a `Layout` says; by default every rank has all of it and its own share of the batch.

    `precision` is that of the trainer: a pipeline computes outside of the trainer's autocast. A batch is a tuple or
    list of tensors (batch, sequence), the first of which the model takes. Without tensor, context, pipeline and expert
    parallelism any model and batch will do. Raises LayoutError when the layout needs another number of ranks.
    """

    name = "mesh"
    can_scale_loss = False  # ranks with other parts of the model would not agree on the scale

    def __init__(
        self,
        environment: RankEnvironment,
        device: torch.device,
        layout: Layout | Mapping[str, Any] | None = None,
        precision: str = "fp32",
    ) -> None:
        super().__init__(environment, device)
        if layout is None:
            layout = Layout(dp=environment.world_size)
        self.layout = layout if isinstance(layout, Layout) else Layout.from_mapping(dict(layout), "layout")
        if self.layout.num_ranks != environment.world_size:
            raise LayoutError(
                f"The layout needs dp x cp x tp x pp = {self.layout.num_ranks} ranks, but {environment.world_size} "
                f"started. Start {self.layout.num_ranks} ranks, or choose another layout."
            )
        if precision not in ("fp32", *_DTYPES):
            raise ConfigError(f"precision={precision}, but strategy=mesh computes in fp32 or bf16. Set one of them.")
        self._autocast: Callable[[], AbstractContextManager[object]] = nullcontext
        if precision in _DTYPES:
            self._autocast = partial(torch.autocast, device.type, dtype=_DTYPES[precision])
        self._replicas: list[gradients.Replicas] = []
        self._sharded: list[FSDPModule] = []
        self._copies: dict[nn.Parameter, int] = {}
        self._tied: list[nn.Parameter] = []
        self._pipeline: Pipeline | None = None

    def setup(self) -> None:
        """Join the other ranks and build the grid; raise LaunchError when they cannot be reached."""
        super().setup()
        self._grid = Grid(self.layout, self.device.type)
        layout = self.layout
        is_ring = layout.context_parallel == "ring"
        self._sequence = SequenceShard(self._grid.index("cp"), layout.cp, is_ring)

    @property
    def data_shard(self) -> tuple[int, int]:
        """Ranks that differ in their place along dp alone read different data."""
        return self._grid.index("dp"), self.layout.dp

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return this rank's part of the model, with rank 0's weights; raise ConfigError if it cannot be split."""
        self._share_weights(model)
        if self.layout.is_data_parallel:
            model = model.to(self.device)
            self._count_copies(model)
            return model
        decoder = as_decoder(model)
        stages = self._stages(decoder)
        keep_stages(decoder, stages)
        model = model.to(self.device)
        self._split_layers(model, decoder)
        pipelined = self.layout.pp > 1
        split = self.layout.tp if self.layout.sequence_parallel else 1
        chunks = {
            stage: Chunk(decoder, layers, self._sequence.positions, split, self._autocast if pipelined else None)
            for stage, layers in stages.items()
        }
        if self.layout.zero_stage:
            self._sharded = shard_weights(chunks.values(), self.layout, self._grid)
        split_model = SplitModel(model, chunks)
        if pipelined:
            logits_mesh = self._grid.weights["tp"] if self.layout.tp > 1 else None
            self._pipeline = Pipeline(
                split_model, decoder.spec.hidden_size, self.layout, self._grid.group("pp"), self.device, logits_mesh
            )
            self._find_tied(decoder)
        self._count_copies(model)
        return split_model

    def module(self, model: nn.Module) -> nn.Module:
        """Return the decoder, whose parameters have the names that they have in the whole model."""
        return model.decoder if isinstance(model, SplitModel) else model

    @contextmanager
    def synchronise(self, model: nn.Module, is_last: bool) -> Iterator[None]:
        """Let only the last micro-batch average the gradients."""
        for module in self._sharded:
            module.set_requires_gradient_sync(is_last)
            module.set_is_last_backward(is_last)
        with self._parallel_loss():
            yield
        if is_last:
            self._finish_gradients(model)

    def forward_backward(
        self,
        model: nn.Module,
        training_step: Callable[[Any], Tensor],
        batches: Iterator[Any],
        count: int,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ) -> Tensor:
        """Add the gradients of `count` micro-batches and return their mean loss on this rank, detached.

        In a pipeline only the last stage has losses; they are multiplied by pp, so that the mean over the ranks is
        that of the batch.
        """
        step = self._plain(training_step)
        if self._pipeline is None:
            copy_from_rank_zero(list(model.buffers()), self.collectives)
            taken = (self._sequence.take(next(batches)) for _ in range(count))
            return super().forward_backward(model, step, taken, count, backward)
        with self._parallel_loss():
            loss = self._pipeline.run(step, [self._sequence.take(next(batches)) for _ in range(count)])
        self._finish_gradients(model)
        return loss

    def evaluate(self, model: nn.Module, validation_step: Callable[[Any], Tensor], batch: Any) -> Tensor:
        """Return the loss of one micro-batch; as with `forward_backward`, its mean over the ranks is the loss."""
        step, batch = self._plain(validation_step), self._sequence.take(batch)
        with self._parallel_loss():
            return step(batch) if self._pipeline is None else self._pipeline.evaluate(step, batch)

    def clip(self, parameters: list[nn.Parameter], max_norm: float) -> Tensor:
        """Scale the gradients so that their norm over all ranks is at most `max_norm`; return the norm before."""
        return gradients.clip(parameters, max_norm, self._copies)

    def state(self, model: nn.Module, optimizer: Optimizer) -> Tensors:
        """Return this rank's part of the state, under the names of the whole model."""
        copy_from_rank_zero(list(self.module(model).buffers()), self.collectives)
        return super().state(model, optimizer)

    # How the model is split

    def _share_weights(self, model: nn.Module) -> None:
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.detach().copy_(self.collectives.broadcast(tensor.to(self.device)))

    def _stages(self, decoder: Decoder) -> dict[int, range]:
        layers = layers_of_stages(decoder.spec.num_layers, self.layout)
        mine = self._grid.index("pp")
        return {
            stage: layers[stage]
            for stage in range(num_stages(self.layout))
            if rank_of_stage(stage, self.layout) == mine
        }

    def _split_layers(self, model: nn.Module, decoder: Decoder) -> None:
        layout, grid = self.layout, self._grid
        if layout.tp > 1:
            split_tensors(model, grid.weights["tp"], layout.sequence_parallel)
        block: Any
        for block in decoder.blocks:
            if layout.cp > 1:
                attention = block.attention
                is_ring, group = layout.context_parallel == "ring", grid.group("cp")
                attention.core = RingAttention(group) if is_ring else AllToAllAttention(group, attention.core)
            if hasattr(block.mlp, "experts"):
                split_experts(block.mlp, grid.experts["ep"])
                if layout.tp > 1 and not layout.sequence_parallel:
                    cut_tokens(block.mlp, grid.weights["tp"])

    def _find_tied(self, decoder: Decoder) -> None:
        """Note the weight that the first and the last stage share, where they are on different ranks."""
        last = rank_of_stage(num_stages(self.layout) - 1, self.layout)
        if not decoder.spec.tied_embeddings or last == 0:
            return
        self._ends = self._grid.ends_of_pipelines()
        if decoder.token_embedding is not None:
            self._tied = list(decoder.token_embedding.parameters())

    def _count_copies(self, model: nn.Module) -> None:
        """Note how many ranks have the same part of each parameter, and with whom its gradient must be averaged."""
        layout, grid = self.layout, self._grid
        per_stage = layout.dp * layout.cp * layout.tp
        experts = {p for name, p in model.named_parameters() if ".experts." in name and isinstance(p, DTensor)}
        for parameter in model.parameters():
            parts = 1
            if isinstance(parameter, DTensor):
                sizes = zip(parameter.placements, parameter.device_mesh.shape, strict=True)
                for placement, size in sizes:
                    parts *= 1 if placement.is_replicate() else size
            ends = 2 if any(parameter is tied for tied in self._tied) else 1
            self._copies[parameter] = ends * per_stage // parts
        batches = layout.dp * layout.cp
        if layout.zero_stage == 0:
            dense = [p for p in model.parameters() if p not in experts]
            self._replicas = [gradients.Replicas(dense, grid.weights.get_group("replicate"), batches)]
        if experts and (layout.zero_stage == 0 or layout.expert_dp == 1):  # shard_weights sees to the others
            routed = [p for p in model.parameters() if p in experts]
            self._replicas.append(gradients.Replicas(routed, grid.experts.get_group("replicate"), batches))

    # What a step needs

    def _parallel_loss(self) -> AbstractContextManager[object]:
        return loss_parallel() if self.layout.tp > 1 else nullcontext()

    def _plain(self, step: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
        if self.layout.tp == 1:
            return step

        def plain(batch: Any) -> Tensor:
            loss = step(batch)
            return loss.full_tensor() if isinstance(loss, DTensor) else loss

        return plain

    def _finish_gradients(self, model: nn.Module) -> None:
        if self.layout.tp > 1 and not self.layout.zero_stage:
            gradients.gather_partial(model.parameters())
        for replicas in self._replicas:
            gradients.average(replicas)
        if self._tied and self._ends is not None:
            gradients.average(gradients.Replicas(self._tied, self._ends, 1))
