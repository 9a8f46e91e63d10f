"""`python -m mesh_worker TASKS.json`: one rank that trains several runs one after the other.

A task is {"config": path of a GPTTrainingConfig, "out": where to put what was found, "copy_from": a run directory to
begin with or null}.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from forked_tasks import do_each
from gnomon.launch.rank_errors import report_rank_error
from gnomon.train.config import GPTTrainingConfig
from gnomon.train.gpt_trainer import GPTTrainer


class RecordingTrainer(GPTTrainer):
    """Leaves the whole state of the model and the optimizer in `found` once it has trained."""

    found: dict[str, Any]

    def train(self, stop: Any) -> None:
        super().train(stop)
        state = self.strategy.state(self.model, self.optimizer)
        whole = {".".join(path): _whole(tensor) for path, tensor in _leaves(state)}
        merged: dict[str, torch.Tensor] = {}
        differing = []
        for part in self.strategy.collectives.gather_objects(whole):
            for name, tensor in part.items():
                if not torch.equal(merged.setdefault(name, tensor), tensor):
                    differing.append(name)
        shares = self.strategy.collectives.gather_objects(self.strategy.data_shard)
        here = sum(_local(parameter).numel() for parameter in self.module.parameters())
        counts = self.strategy.collectives.gather_objects(here)
        self.found = {"state": merged, "differing": differing, "shares": shares, "counts": counts}


def main() -> None:
    """Do the tasks in the file named on the command line; raise SystemExit when one fails."""
    with report_rank_error():
        path = Path(sys.argv[1])
        do_each(json.loads(path.read_text(encoding="utf-8")), _do, path)


def _do(task: dict[str, Any]) -> None:
    config = GPTTrainingConfig.load(task["config"])
    if os.environ["RANK"] == "0" and task["copy_from"] is not None:
        shutil.copytree(task["copy_from"], config.run_dir)
    dist.barrier()
    record(config, Path(task["out"]))


def record(config: GPTTrainingConfig, out: Path) -> None:
    """Train and write what was found."""
    trainer = RecordingTrainer(config)
    trainer.execute()
    if int(os.environ.get("RANK", "0")) == 0:
        torch.save(trainer.found, out)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        return [(path, value)]
    return [leaf for key, item in value.items() for leaf in _leaves(item, (*path, key))]


def _whole(tensor: Any) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def _local(tensor: Any) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


if __name__ == "__main__":
    main()
