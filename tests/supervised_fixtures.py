"""Small supervised runs on pairs of arrays, the same on any number of ranks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnomon.runtime.run_directory import RunDirectory
from gnomon.train.checkpoint_files import list_checkpoints, read_state
from gnomon.train.supervised import SupervisedTrainer

MODEL = {"name": "mlp", "hidden": [8], "num_classes": 3}


def make_data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return `count` points of three overlapping clusters in 4 dimensions, and their classes."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, 3, count)
    points = generator.normal(size=(count, 4)) + 1.5 * np.eye(3, 4)[classes]
    return torch.tensor(points, dtype=torch.float32), torch.tensor(classes)


TRAIN, VALIDATION, TEST = make_data(70, 0), make_data(37, 1), make_data(21, 2)  # 4 batches of 16, and uneven ones


def make_trainer(run_dir: Path, model: Any = MODEL, **changes: Any) -> SupervisedTrainer:
    """Return a trainer of 10 steps, two and a half epochs."""
    settings = {
        "run_dir": str(run_dir), "num_steps": 10, "batch": 16, "learning_rate": 0.01, "device": "cpu",
        "progress": False, "log_every": 1, "eval_every": 5, "checkpoint_every": 10,
    }  # fmt: skip
    return SupervisedTrainer({**settings, **changes}, model, metrics=["accuracy"])


def train(run_dir: Path, **changes: Any) -> SupervisedTrainer:
    """Train and evaluate."""
    trainer = make_trainer(run_dir, **changes)
    trainer.execute(TRAIN, VALIDATION, TEST)
    return trainer


def rows(run_dir: Path, *names: str) -> list[dict[str, Any]]:
    """Return the figures `names` of every row that has one of them, with their steps."""
    found = RunDirectory(run_dir).read_metrics()
    return [{name: row[name] for name in ("step", *names) if name in row} for row in found if {*names} & {*row}]


def newest_tensors(run_dir: Path) -> dict[str, Any]:
    """Return the fingerprints of the tensor files of the newest checkpoint."""
    files = read_state(list_checkpoints(run_dir / "checkpoints")[0])["files"]
    return {name: fingerprint for name, fingerprint in files.items() if name.endswith(".distcp")}


def as_json(value: Any) -> Any:
    """Return a value as it is after a trip through a JSON file."""
    return json.loads(json.dumps(value))
