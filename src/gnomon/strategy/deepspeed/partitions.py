"""What ZeRO 1 to 3 keeps in flat partitions, as tensors by name, and back.

DeepSpeed's own checkpoints hold the flat partitions, which only the same number of ranks under the same stage can
read. Here each tensor is put together, one at a time, and every rank keeps an even share of its rows as DTensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn import functional as F

from gnomon.strategy.base import Tensors


def full_state(module: nn.Module, zero: Any, device: torch.device) -> Tensors:
    """Return {"model", "optimizer"} of a module whose engine has the ZeRO optimizer `zero`; call it on every rank."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    names = _names(module)
    model = {key: value.detach() for key, value in module.state_dict().items() if key not in names}
    optimizer: Tensors = {}
    for name, (parameter, aliases) in _parameters(module).items():
        if parameter.requires_grad:
            value = _share(safe_get_full_fp32_param(parameter), mesh)
            optimizer[name] = {
                key: item if item is not None else _share(safe_get_full_optimizer_state(parameter, key), mesh)
                for key, item in _kinds(zero, parameter).items()
            }
        else:
            with _gathered(parameter):
                value = _share(parameter, mesh)
        model |= dict.fromkeys(aliases, value)
    return {"model": {key: model[key] for key in module.state_dict()}, "optimizer": optimizer}


def load_full_state(module: nn.Module, zero: Any, tensors: Tensors) -> None:
    """Put tensors like those of `full_state` back into the partitions; call it on every rank."""
    from deepspeed.utils import safe_set_full_optimizer_state

    names = _names(module)
    for key, value in module.state_dict().items():
        if key not in names:
            value.copy_(_whole(tensors["model"][key]))
    for name, (parameter, _) in _parameters(module).items():
        _set_parameter(parameter, _whole(tensors["model"][name]))
        for key, item in tensors["optimizer"].get(name, {}).items():
            own = _kinds(zero, parameter)[key]
            if own is not None:
                own.copy_(item)
            elif hasattr(parameter, "ds_id"):
                from deepspeed.utils import safe_set_local_optimizer_state

                safe_set_local_optimizer_state(parameter, _own_partition(parameter, _whole(item)), key)
            else:
                safe_set_full_optimizer_state(parameter, _whole(item), key)


def _names(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_parameters(remove_duplicate=False)}


def _parameters(module: nn.Module) -> dict[str, tuple[nn.Parameter, list[str]]]:
    """Return {first name: (parameter, all its names)}."""
    aliases: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        aliases.setdefault(parameter, []).append(name)
    return {names[0]: (parameter, names) for parameter, names in aliases.items()}


def _share(whole: Tensor, mesh: DeviceMesh) -> DTensor:
    """Return this rank's rows of a tensor that every rank has."""
    placement = Shard(0) if whole.dim() else Replicate()
    return distribute_tensor(whole.detach().clone(), mesh, [placement], src_data_rank=None)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _flats(zero: Any) -> list[tuple[Tensor, int]]:
    """Return the flat fp32 partitions of this rank, each with the number of its parameter group."""
    if hasattr(zero, "fp32_partitioned_groups_flat"):  # stage 3
        flats = zero.fp32_partitioned_groups_flat
        return [(flat, zero.sub_group_to_group_id[index]) for index, flat in enumerate(flats)]
    return [(flat, index) for index, flat in enumerate(zero.single_partition_of_fp32_groups)]


def _flat_of(zero: Any, parameter: nn.Parameter) -> Tensor:
    if hasattr(parameter, "ds_id"):
        index, *_ = zero.grad_position[zero.get_param_id(parameter)]
        flat: Tensor = zero.fp32_partitioned_groups_flat[index]
        return flat
    groups = zero.bit16_groups
    index = next(i for i, group in enumerate(groups) if any(member is parameter for member in group))
    return zero.single_partition_of_fp32_groups[index]


def _kinds(zero: Any, parameter: nn.Parameter) -> dict[str, Tensor | None]:
    """Return what the optimizer keeps for a parameter: None for what is as large as it, else the tensor itself."""
    flat = _flat_of(zero, parameter)
    state = zero.optimizer.state[flat]
    return {key: None if value.shape == flat.shape else value for key, value in state.items()}


def create_state(zero: Any) -> None:
    """Let the optimizer make its state before the first step, as it is after no step at all.

    A step with learning rate and gradients of zero changes no weight, but it is counted; the count is taken back.
    DeepSpeed 0.19 links what it keeps for stages 1 and 2 to the parameters after the first group's first step, when
    the other groups have no state yet; done here, all of it is linked.
    """
    basic = zero.optimizer
    flats = _flats(zero)
    kept = [(group, group["params"], group["lr"]) for group in basic.param_groups]
    gradients = [flat.grad for flat, _ in flats]
    for index, group in enumerate(basic.param_groups):
        group["params"] = [flat for flat, owner in flats if owner == index]
        group["lr"] = 0.0
    for flat, _ in flats:
        flat.grad = torch.zeros_like(flat)
    basic.step()
    for group, parameters, rate in kept:
        group["params"], group["lr"] = parameters, rate
    for (flat, _), gradient in zip(flats, gradients, strict=True):
        flat.grad = gradient
        if "step" in basic.state[flat]:
            basic.state[flat]["step"].zero_()
    if hasattr(zero, "_lazy_init_hp_params_optimizer_state"):
        zero._lazy_init_hp_params_optimizer_state()


def _set_parameter(parameter: nn.Parameter, value: Tensor) -> None:
    """Set the weights in use and the fp32 weights that the optimizer steps."""
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

    with _gathered(parameter), torch.no_grad():
        parameter.copy_(value)
    if hasattr(parameter, "ds_id"):
        if parameter.requires_grad:
            safe_set_local_fp32_param(parameter, _own_partition(parameter, value))
    else:
        safe_set_full_fp32_param(parameter, value)


@contextmanager
def _gathered(parameter: nn.Parameter) -> Iterator[None]:
    """Make the whole parameter readable, and what is written to it (alike on every rank) last."""
    if not hasattr(parameter, "ds_id"):
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters([parameter], modifier_rank=0):
        yield


def _own_partition(parameter: Any, value: Tensor) -> Tensor:
    """Return this rank's part of a value (the last rank's is padded) under stage 3."""
    size = parameter.ds_tensor.ds_numel
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    padded = F.pad(value.flatten(), (0, size * ranks - value.numel()))
    return padded[rank * size : (rank + 1) * size]
