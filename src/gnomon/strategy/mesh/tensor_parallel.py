"""Tensor parallelism: which matrix is cut along which dimension (Megatron-LM, arXiv 1909.08053 and 2205.05198)."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInputOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.distributed.tensor.placement_types import Placement

from gnomon.strategy.mesh.decoder import Decoder


def split_tensors(decoder: nn.Module, mesh: DeviceMesh, sequence_parallel: bool) -> None:
    """Cut the weights of a decoder over a one-dimensional mesh, and let its modules exchange what they then lack.

    With `sequence_parallel` the hidden states between the modules are cut along the sequence, otherwise whole.
    """
    plan = _plan(sequence_parallel)
    for name, module in list(decoder.named_modules()):
        style = next((style for pattern, style in plan.items() if fnmatchcase(name, pattern)), None)
        if style is not None:
            parallelize_module(module, mesh, style, src_data_rank=None)
    _tie(decoder)


def _plan(sequence_parallel: bool) -> dict[str, ParallelStyle]:
    hidden = Shard(1) if sequence_parallel else Replicate()
    norm = SequenceParallel(use_local_output=True) if sequence_parallel else _Replicated()
    column, row = ColwiseParallel(input_layouts=hidden), RowwiseParallel(output_layouts=hidden)
    # tokens of a mixture of experts are cut along the sequence in any case: no rank routes those of another
    by_token = SequenceParallel(use_local_output=True)
    plan: dict[str, ParallelStyle] = {
        "*_embedding": RowwiseParallel(input_layouts=Replicate(), output_layouts=hidden),
        "blocks.*.attention_norm": norm,
        "blocks.*.attention.qkv": column,
        "blocks.*.attention.query_norm": SequenceParallel(sequence_dim=2, use_local_output=True),
        "blocks.*.attention.key_norm": SequenceParallel(sequence_dim=2, use_local_output=True),
        "blocks.*.attention.*_down": norm,  # latents are narrow: computed whole, or by each rank for its tokens
        "blocks.*.attention.*latent_norm": norm,
        "blocks.*.attention.*_up": column,
        "blocks.*.attention.shared_key": _Gathered(hidden),
        "blocks.*.attention.output": row,
        "blocks.*.attention_output_norm": norm,
        "blocks.*.mlp_norm": norm,
        "blocks.*.mlp_output_norm": norm,
        "blocks.*.mlp.router": by_token,
        "blocks.*.mlp.shared_gate": by_token,
        "blocks.*.mlp.shared.up": ColwiseParallel(input_layouts=Shard(1)),
        "blocks.*.mlp.shared.down": RowwiseParallel(output_layouts=Shard(1)),
        "blocks.*.mlp.up": column,
        "blocks.*.mlp.down": row,
        "final_norm": norm,
        "head": ColwiseParallel(input_layouts=hidden, use_local_output=False),
    }
    return plan


def cut_tokens(mixture: nn.Module, mesh: DeviceMesh) -> None:
    """Let a mixture of experts take its share of tokens that all ranks of `mesh` have, and give all of them back."""
    style = PrepareModuleInputOutput(
        input_layouts=(Replicate(),),
        desired_input_layouts=(Shard(1),),
        use_local_input=True,
        output_layouts=(Shard(1),),
        desired_output_layouts=(Replicate(),),
    )
    parallelize_module(mixture, mesh, style, src_data_rank=None)


class _Replicated(ParallelStyle):
    """Every rank computes the module with all of its input."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def prepare(_: nn.Module, inputs: tuple[Any, ...], mesh: DeviceMesh) -> Any:
            return DTensor.from_local(inputs[0], mesh, [Replicate()], run_check=False)

        def finish(_: nn.Module, output: Any, mesh: DeviceMesh) -> Any:
            return output.to_local()

        return distribute_module(module, device_mesh, None, prepare, finish)


class _Gathered(ParallelStyle):
    """Every rank gets the whole of the output; each uses it for its own heads, so that the gradients add up."""

    def __init__(self, layout: Placement) -> None:
        super().__init__()
        self._layout = layout

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def gather(_: nn.Module, output: Any, mesh: DeviceMesh) -> Any:
            whole = DTensor.from_local(output, mesh, [self._layout], run_check=False).redistribute(mesh, [Replicate()])
            return whole.to_local(grad_placements=[Partial()])

        return distribute_module(module, device_mesh, None, None, gather)


def _tie(decoder: nn.Module) -> None:
    model: Decoder = decoder  # type: ignore[assignment]
    if model.spec.tied_embeddings and model.head is not None and model.token_embedding is not None:
        model.head.weight = model.token_embedding.weight
