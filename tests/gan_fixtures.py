"""A small GAN on a ring of eight clusters in the plane."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnomon.train.gan import GANTrainer


def make_ring(count: int, seed: int) -> Tensor:
    """Return `count` points (count, 2) around eight places on the unit circle, 0.05 from them."""
    generator = np.random.default_rng(seed)
    angles = generator.integers(0, 8, count) * (2.0 * math.pi / 8)
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return torch.tensor(places + 0.05 * generator.normal(size=(count, 2)), dtype=torch.float32)


RING = make_ring(500, 0)


def make_gan(run_dir: Path, **changes: Any) -> GANTrainer:
    """Return a trainer of 10 steps."""
    settings = {
        "run_dir": str(run_dir), "num_steps": 10, "batch": 32, "learning_rate": 1e-3, "device": "cpu",
        "progress": False, "log_every": 1, "latent_dim": 4, "quality_samples": 200,
    }  # fmt: skip
    network = {"name": "mlp", "hidden": [32]}
    return GANTrainer({**settings, **changes}, network, network)


def weights(trainer: GANTrainer) -> Tensor:
    """Return the weights of both networks as one vector."""
    parameters = [*trainer.module.parameters(), *trainer.discriminator.parameters()]
    return torch.nn.utils.parameters_to_vector(parameters).detach().clone()
