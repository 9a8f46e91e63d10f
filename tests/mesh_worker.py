"""`python -m mesh_worker TASKS.json`: one rank that trains several runs one after the other.

A task is {"config": path of a GPTTrainingConfig, "out": where to put what was found, "copy_from": a run directory to
begin with or null}.
"""

import json
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

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
    """Do each task in a process forked from this one, which has imported torch: that takes longer than the task."""
    with report_rank_error():
        tasks = Path(sys.argv[1])
        for index, task in enumerate(json.loads(tasks.read_text(encoding="utf-8"))):
            store = tasks.with_name(f"{tasks.stem}-{index}.store")
            pid = os.fork()
            if pid == 0:
                os._exit(_do(task, store))
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code != 0:
                raise RuntimeError(f"{task['out']} failed with {code}")


def _do(task: dict[str, Any], store: Path) -> int:
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    config = GPTTrainingConfig.load(task["config"])
    try:
        if rank == 0 and task["copy_from"] is not None:
            shutil.copytree(task["copy_from"], config.run_dir)
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
        record(config, Path(task["out"]))
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


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
