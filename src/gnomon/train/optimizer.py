"""AdamW and the learning rate by step."""

from __future__ import annotations

import math

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


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the rate of step 1..num_steps: linear warm-up to `learning_rate`, then a cosine down to its last value."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    progress = (step - config.warmup_steps) / (config.num_steps - config.warmup_steps)
    lowest = config.learning_rate * config.min_learning_rate_ratio
    return lowest + (config.learning_rate - lowest) * 0.5 * (1.0 + math.cos(math.pi * progress))
