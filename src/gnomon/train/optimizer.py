"""AdamW and the learning rate by step."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def warmup_cosine(config: TrainingConfig) -> Callable[[int], float]:
    """Return the learning rate of step 1..num_steps: linear up to `learning_rate`, then a cosine down to the last."""
    warmup, highest = config.warmup_steps, config.learning_rate
    lowest = highest * config.min_learning_rate_ratio
    per_step = math.pi / max(1, config.num_steps - warmup)

    def rate(step: int) -> float:
        if step <= warmup:
            return highest * step / warmup
        return lowest + (highest - lowest) * 0.5 * (1.0 + math.cos((step - warmup) * per_step))

    return rate
