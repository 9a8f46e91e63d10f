"""The usual parts of a workflow, as base classes: they say what such a step takes and returns."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from gnomon.component.base import Component


class DataGetter(Component):
    """Gets a dataset from where it is kept; takes no input."""

    @abstractmethod
    def execute(self) -> Any:
        """Return the dataset; raise DataError when it is missing."""


class DataProcessor(Component):
    """Changes the three parts of a dataset, in the same way where that matters."""

    @abstractmethod
    def execute(self, train: Any, validation: Any = None, test: Any = None) -> tuple[Any, Any, Any]:
        """Return the processed train, validation and test parts; a part that is None stays None."""


class Predictor(Component):
    """Applies a model to a dataset. The model is a setting, or the second input where an earlier step makes it."""

    def __init__(self, model: Any = None) -> None:
        self.model = model

    @abstractmethod
    def execute(self, dataset: Any, model: Any = None) -> Any:
        """Return the predictions, in the order of the dataset; `model` is used instead of the one in the settings."""


class Saver(Component):
    """Writes something to a file or a server and passes it on."""

    @abstractmethod
    def execute(self, artifact: Any) -> Any:
        """Save `artifact` and return it."""
