"""The interface of every tracker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any


class Tracker(ABC):
    """Takes the rows of a run, on rank 0 only. A tracker never stops a run: its troubles are warnings."""

    @abstractmethod
    def log(self, row: Mapping[str, Any]) -> None:
        """Take one row: a training row has "loss", an evaluation row "eval_loss", both have "step"."""

    @abstractmethod
    def close(self) -> None:
        """Send what is left and let go of files; harmless when called twice."""
