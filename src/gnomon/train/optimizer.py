"""AdamW, with the learning rate of schedule.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gnomon.train.config import TrainingConfig


def create_adamw(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Return AdamW (arXiv 1711.05101) that decays matrices only, not biases and gains; fused where PyTorch has it.

    Parameters that are distributed over different ranks are in groups of their own, since one operation of the
    optimizer cannot work on several meshes.
    """
    groups: dict[tuple[object, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.dim() >= 2 and not name.endswith("bias")
            group = {"params": [], "weight_decay": config.weight_decay if decays else 0.0}
            groups.setdefault((getattr(parameter, "device_mesh", None), not decays), group)["params"].append(parameter)
    parameters = [parameter for group in groups.values() for parameter in group["params"]]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    return torch.optim.AdamW(list(groups.values()), lr=config.learning_rate, betas=config.betas, fused=fused)
