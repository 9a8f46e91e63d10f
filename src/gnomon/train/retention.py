"""Which checkpoints stay on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnomon.train import checkpoint_files as files


@dataclass(frozen=True, kw_only=True)
class Retention:
    """The newest `newest`, those of every `every` steps (0: none), and the one of the best evaluation."""

    newest: int = 2
    every: int = 0

    def prune(self, directory: Path, document: dict[str, Any]) -> None:
        """Delete the complete checkpoints that need not stay; `document` is the state of the newest one."""
        best = document.get("best") or {}
        for path in files.list_checkpoints(directory)[self.newest :]:
            step = files.step_of(path)
            if step != best.get("step") and not (self.every and step % self.every == 0):
                files.delete(path)
