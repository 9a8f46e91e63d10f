"""AdamW, with the learning rate of schedule.py."""

from __future__ import annotations

import torch
from torch import nn

from gnomon.train.config import TrainingConfig


def create_adamw(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Return AdamW (arXiv 1711.05101) that decays matrices only, not biases and gains; fused where PyTorch has it."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas, fused=fused
    )
