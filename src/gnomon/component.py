"""The base class of every workflow step: `execute(*inputs) -> outputs`, usable alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Component(ABC):
    """One step of work. Subclasses take their settings in `__init__` and their inputs in `execute`."""

    @property
    def name(self) -> str:
        """Name shown in messages; the class name unless a pipeline gives the step another."""
        return type(self).__name__

    @abstractmethod
    def execute(self, *inputs: Any) -> Any:
        """Do the work and return the outputs: None for none, a tuple for several, anything else for one."""
