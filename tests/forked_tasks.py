"""Several trainings in the same ranks, each in a process forked from one that has imported what they all need."""

import importlib
import os
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

IMPORTED = (
    "torch._dynamo", "torch.distributed.pipelining",
    "gnomon.strategy.ddp", "gnomon.strategy.fsdp", "gnomon.strategy.mesh", "gnomon.strategy.single",
    "gnomon.track.collection", "gnomon.track.console", "gnomon.track.jsonl", "gnomon.train.tensor_store",
)  # fmt: skip
"""What a training imports when it needs it, which takes longer than a small one trains."""

T = TypeVar("T")


def do_each(
    tasks: Sequence[T], do: Callable[[T], None], stores: Path, modules: Iterable[str] = (), expected: int = 0
) -> None:
    """Do one task after the other, in forks whose process groups meet in files named after `stores`.

    All tasks are tried; then RuntimeError names those that ended with another code than `expected`.
    """
    for name in (*IMPORTED, *modules):
        importlib.import_module(name)
    failed = []
    for index, task in enumerate(tasks):
        pid = os.fork()
        if pid == 0:
            os._exit(_do(task, do, stores.with_name(f"{stores.stem}-{index}.store")))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code != expected:
            failed.append(f"{task} ended with {code}")
    if failed:
        raise RuntimeError("; ".join(failed))


def _do(task: T, do: Callable[[T], None], store: Path) -> int:
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
        do(task)
        dist.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
