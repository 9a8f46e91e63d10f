"""`Pipeline`: components run one after the other, each fed by the one before."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from gnomon.component import Component
from gnomon.errors import PipelineError, did_you_mean
from gnomon.pipeline._progress import print_finished
from gnomon.pipeline._selection import select_labels


class Pipeline(Component):
    """Steps in a list, or in a mapping that names them; itself a component, so that pipelines nest.

    What a step returns is passed on: None as no input, a tuple as several, anything else as one.
    `timings` holds the seconds of each finished step of the last `execute`, by label.
    """

    def __init__(self, steps: Sequence[Component] | Mapping[str, Component]) -> None:
        self._named = isinstance(steps, Mapping)
        if isinstance(steps, Mapping):
            self._steps = {str(label): step for label, step in steps.items()}
        elif isinstance(steps, Sequence) and not isinstance(steps, str):
            self._steps = dict(zip(_labels(steps), steps, strict=True))
        else:
            raise PipelineError(f"A pipeline takes its steps as a list or a mapping, found {type(steps).__name__}.")
        if not self._steps:
            raise PipelineError("A pipeline needs at least one step; its list of steps is empty.")
        for label, step in self._steps.items():
            _check_step(label, step)
        self.timings: dict[str, float] = {}

    @property
    def steps(self) -> dict[str, Component]:
        """The steps by label; in a list, the label is the step's own name, numbered where names repeat."""
        return dict(self._steps)

    def execute(self, *inputs: Any) -> Any:
        """Run every step in order and return what the last one returned; raise PipelineError where steps do not fit."""
        self.timings = {}
        result: Any = inputs
        previous = "the pipeline was given"
        for label, step in self._steps.items():
            arguments = _as_arguments(result)
            _check_fit(label, step, arguments, previous)
            started = time.perf_counter()
            result = step.execute(*arguments)
            self.timings[label] = time.perf_counter() - started
            print_finished(label, self.timings[label])
            previous = f"step '{label}' returned"
        return result

    def select(self, steps: str | Sequence[str | int]) -> Pipeline:
        """Return the pipeline of the chosen steps, in their own order: `'plan,train'`, `'1:3'` or a list of names."""
        return self._subset(select_labels(steps, list(self._steps)))

    @overload
    def __getitem__(self, key: str | int) -> Component: ...
    @overload
    def __getitem__(self, key: slice) -> Pipeline: ...
    def __getitem__(self, key: str | int | slice) -> Component | Pipeline:
        """Return the step with this name or position, or for a slice the pipeline of these steps."""
        labels = list(self._steps)
        if isinstance(key, slice):
            return self._subset(labels[key])
        if isinstance(key, str):
            if key not in self._steps:
                raise PipelineError(f"The pipeline has no step '{key}'. {did_you_mean(key, labels)}")
            return self._steps[key]
        if not -len(labels) <= key < len(labels):
            raise PipelineError(f"The pipeline has no step {key}; it has {len(labels)}, numbered from 0.")
        return self._steps[labels[key]]

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Component]:
        return iter(self._steps.values())

    def _subset(self, labels: Sequence[str]) -> Pipeline:
        chosen = {label: self._steps[label] for label in labels}
        return Pipeline(chosen if self._named else list(chosen.values()))


def _labels(steps: Sequence[Any]) -> list[str]:
    names = [step.name if isinstance(step, Component) else type(step).__name__ for step in steps]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name}-{index}" if name in repeated else name for index, name in enumerate(names)]


def _check_step(label: str, step: Any) -> None:
    if isinstance(step, Component):
        return
    if inspect.isclass(step) and issubclass(step, Component):
        raise PipelineError(f"Step '{label}' is the class {step.__name__}. Make an object of it: {step.__name__}(...).")
    hint = "Did its mapping lose its _target_?" if isinstance(step, Mapping) else "Derive it from gnomon.Component."
    raise PipelineError(f"Step '{label}' is a {type(step).__name__}, not a component. {hint}")


def _as_arguments(result: Any) -> tuple[Any, ...]:
    if result is None:
        return ()
    return result if isinstance(result, tuple) else (result,)


def _check_fit(label: str, step: Component, arguments: tuple[Any, ...], previous: str) -> None:
    """Raise PipelineError when `step.execute` does not take these arguments."""
    signature = inspect.signature(step.execute)
    try:
        signature.bind(*arguments)
    except TypeError as error:
        kinds = ", ".join(type(argument).__name__ for argument in arguments) or "nothing"
        takes = ", ".join(str(parameter) for parameter in signature.parameters.values()) or "no input"
        raise PipelineError(
            f"Step '{label}' ({type(step).__name__}) takes ({takes}), but {previous} {len(arguments)} value(s) "
            f"({kinds}): {error}. Change the order of the steps, or what the earlier one returns."
        ) from None
