"""What a study may change about a trainer, and between which values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Self

from optuna.trial import BaseTrial
from pydantic import Field, model_validator

from gnomon.errors import ConfigError
from gnomon.spec import Noun


class Range(Noun):
    """Numbers from `low` to `high`, whole ones if both are; `log` draws their logarithm evenly."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError(f"low={self.low}, high={self.high}; low may not exceed high, and with log it is above 0")
        return self

    def draw(self, trial: BaseTrial, name: str) -> Any:
        """Return a number that the trial suggests."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def extremes(self) -> list[Any]:
        """Return the values to try the trainer's validation with."""
        return [self.low, self.high]


class Choices(Noun):
    """A list of any values."""

    choices: tuple[Any, ...] = Field(min_length=1)

    def draw(self, trial: BaseTrial, name: str) -> Any:
        """Return a value that the trial suggests; it is stored as JSON, since Optuna knows no choices of lists."""
        return json.loads(trial.suggest_categorical(name, [json.dumps(choice) for choice in self.choices]))

    def extremes(self) -> list[Any]:
        """Return all values."""
        return list(self.choices)


Space = dict[str, Range | Choices]


def read_space(space: Mapping[str, Any]) -> Space:
    """Return {dotted setting: values} of a tree whose leaves are {low, high, log} or {choices}; raise SpecError."""
    found = dict(_leaves(space, ""))
    if not found:
        raise ConfigError("space is empty. Give what to search, as in {config: {learning_rate: {low: 1e-4, high: 1}}}.")
    return found


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Range | Choices]]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if not isinstance(value, Mapping):
            raise ConfigError(f"space.{path} is {value!r}; give {{low: ..., high: ...}} or {{choices: [...]}}.")
        if all(isinstance(each, Mapping) for each in value.values()):
            yield from _leaves(value, f"{path}.")
        else:
            kind: type[Range | Choices] = Choices if "choices" in value else Range
            yield path, kind.from_mapping(value, f"space.{path}")


def overridden(arguments: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a trainer's arguments with {dotted setting: value}; raise ConfigError for a wrong place."""
    changed = deepcopy(dict(arguments))
    for path, value in values.items():
        *parents, last = path.split(".")
        node = changed
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                raise ConfigError(f"space.{path}: the trainer's arguments have no mapping '{parent}'.")
            node = node[parent]
        node[last] = value
    return changed
