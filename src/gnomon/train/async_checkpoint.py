"""Checkpoints that are written by a thread while training goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from gnomon.strategy.base import Strategy, Tensors
from gnomon.train.agreement import on_main_rank
from gnomon.train.checkpoint import Checkpointer
from gnomon.train.retention import Retention


class AsyncCheckpointer(Checkpointer):
    """`save` only copies the tensors, into buffers that the next save uses again; a thread writes them.

    The thread talks to the other ranks in a group of its own. What went wrong there is raised, on every rank, by the
    next `save` or by `wait`. Two checkpoints are never on their way at once. The memory needed is that of the state.
    """

    def __init__(self, directory: Path, strategy: Strategy, retention: Retention, identity: dict[str, Any]) -> None:
        super().__init__(directory, strategy, retention, identity)
        on_cuda = strategy.device.type == "cuda"
        self._stager = DefaultStager(StagingOptions(on_cuda, False, False, False))
        self._collectives = strategy.collectives.separate()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def save(self, step: int, tensors: Tensors, state: dict[str, Any]) -> Path:
        """Copy the state and return where its checkpoint will be; raise CheckpointError for this or the last one."""
        self.wait()
        free = on_main_rank(self._strategy, lambda: self._make_room(step))
        copies: Any = self._stager.stage(tensors)
        self._writing = self._thread.submit(self.write, step, copies, deepcopy(state), free, self._collectives)
        self.last_saved = step
        return self.path_of(step)

    def wait(self) -> None:
        """Wait for the checkpoint that is being written; raise CheckpointError if it could not be."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def close(self) -> None:
        """Wait for the thread and let go of its buffers; what went wrong in it is not raised here."""
        self._thread.shutdown(wait=True)
        self._stager.close()
