"""`python -m training_conformance_worker TASK.json...`: a rank that trains, writes down what it holds, and may die."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from forked_tasks import do_each
from gnomon.launch.rank_errors import report_rank_error
from gnomon.train.agreement import StopAgreement
from gnomon.train.config import GPTTrainingConfig
from gnomon.train.gpt_trainer import GPTTrainer


class RecordingTrainer(GPTTrainer):
    """Writes this rank's part of the state to `folder` after some steps.

    At `kill_at` the last rank kills itself, or all do: in forks there is no launcher that would end the others.
    """

    def __init__(
        self,
        config: GPTTrainingConfig,
        folder: str,
        record_at: list[int],
        kill_at: int | None = None,
        kill_all: bool = False,
    ):
        super().__init__(config)
        self.folder = Path(folder)
        self.record_at = record_at
        self.kill_at = kill_at
        self.kill_all = kill_all

    def train(self, stop: StopAgreement) -> None:
        """Train; a run that is restored at its end has its state written down too."""
        if self.step in self.record_at:
            self.record()
        super().train(stop)

    def run_step(self) -> Tensor:
        """Do a step, then what is due after it."""
        loss = super().run_step()
        if self.step in self.record_at:
            self.record()
        if self.step == self.kill_at:
            self.strategy.collectives.barrier()
            if self.kill_all or self.strategy.environment.rank == self.strategy.environment.world_size - 1:
                os.kill(os.getpid(), signal.SIGKILL)
        return loss

    def record(self) -> None:
        """Write {name: (shape of the whole, offset of this part, this part)} of weights and optimizer state.

        Beside it, the weights that this rank computes with, where it has all of them.
        """
        state = self.strategy.state(self.model, self.optimizer)
        parts = {name: _part(tensor) for name, tensor in _named("", state)}
        shapes = {name: tensor.shape for name, tensor in state["model"].items()}
        weights = {
            name: _part(parameter.data)
            for name, parameter in self.module.named_parameters()
            if not isinstance(parameter, DTensor) and parameter.shape == shapes.get(name)
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        where = f"step-{self.step}-rank-{self.strategy.environment.rank}.pt"
        torch.save(weights, self.folder / f"weights-{where}")
        torch.save(parts, self.folder / where)


def train_task(path: Path) -> None:
    """Do the task in a file, in this process."""
    task = json.loads(path.read_text(encoding="utf-8"))
    config = GPTTrainingConfig.from_mapping(task.pop("config"))
    RecordingTrainer(config, **task).execute()


def main() -> None:
    """Do the tasks in the files named on the command line, several in forks; raise SystemExit when one fails."""
    paths = [Path(argument) for argument in sys.argv[1:]]
    with report_rank_error():
        tasks = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        killed = all(task.get("kill_all") for task in tasks)
        if len(paths) == 1 and not killed:
            train_task(paths[0])
        else:
            names = {task["config"]["strategy"]["name"] for task in tasks}
            do_each(paths, train_task, paths[0], names & {"deepspeed"}, -signal.SIGKILL if killed else 0)


def _named(prefix: str, value: Any) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(prefix, value)]
    return [item for key, inner in value.items() for item in _named(f"{prefix}.{key}" if prefix else key, inner)]


def _part(tensor: Tensor) -> tuple[list[int], list[int], Tensor]:
    if not isinstance(tensor, DTensor):
        return list(tensor.shape), [0] * tensor.dim(), tensor.detach().clone()
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return list(tensor.shape), list(offset), tensor.to_local().detach().clone()


if __name__ == "__main__":
    main()
