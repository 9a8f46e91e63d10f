"""`Pipeline`: components run in order, each fed by earlier ones."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from gnomon.component import Component
from gnomon.component.monitor import label_here, print_step
from gnomon.errors import PipelineError, did_you_mean
from gnomon.pipeline._execution import Execution, Plan
from gnomon.pipeline._selection import select_labels
from gnomon.pipeline._wiring import chain, independent_groups, parse_inputs, topological_order
from gnomon.runtime.environment import RankEnvironment

if TYPE_CHECKING:
    from gnomon.pipeline.cache import StepCache

DEFAULT_CACHE_DIR = "runs/cache"


class Pipeline(Component):
    """Steps in a list or in a mapping that names them; itself a component, so that pipelines nest.

    Without `inputs` each step takes what the one before returned: None as no input, a tuple as several, anything else
    as one. With `inputs`, a mapping such as `{train: [split.0, split.1], test: {model: train}}`, steps form a graph.

    `cache` keeps the outputs of finished steps in `cache_dir`: of all with True, or of the listed ones. A step is
    taken from there if its code, settings and inputs are the same as then. `cache_pickle` also keeps what only pickle
    can store; reading pickles runs code in them, so share such a folder with nobody.

    Of the last `execute`, `timings` holds the seconds of each finished step and `cached` the steps from the cache.
    """

    def __init__(
        self,
        steps: Sequence[Component] | Mapping[str, Component],
        inputs: Mapping[str, Any] | None = None,
        cache: bool | Sequence[str] = False,
        cache_dir: str | Path = DEFAULT_CACHE_DIR,
        cache_pickle: bool = False,
    ) -> None:
        named = _named(steps)
        if inputs is None:
            wiring, order = chain(list(named)), list(named)
        else:
            if not isinstance(steps, Mapping):
                raise PipelineError(
                    "inputs needs names for the steps. Give steps as a mapping: {load: ..., train: ...}."
                )
            wiring = parse_inputs(inputs, list(named))
            order = topological_order(wiring)
        self._plan = Plan(named, wiring, order, is_chain=inputs is None)
        self._cache = _make_cache(cache, list(named), cache_dir, cache_pickle)
        self.timings: dict[str, float] = {}
        self.cached: list[str] = []

    @property
    def steps(self) -> dict[str, Component]:
        """The steps by label, in the order in which they run; in a list, a label is the step's own name, numbered
        where names repeat.
        """
        return {label: self._plan.steps[label] for label in self._plan.chosen}

    @property
    def independent_steps(self) -> list[list[str]]:
        """Groups of steps that do not need each other and could run at the same time; none in a chain."""
        return [] if self._plan.is_chain else independent_groups(self._plan.wiring, self._plan.chosen)

    def execute(self, *inputs: Any) -> Any:
        """Run the steps and return what the last one returned, or {step: output} of a graph with several last ones.

        Raises PipelineError where steps do not fit together, or where chosen steps of a graph need others.
        """
        for group in self.independent_steps:
            print_step("·", label_here(" ".join(group)), "independent of each other")
        execution = Execution(self._plan, inputs, self._active_cache())
        self.timings, self.cached = execution.timings, execution.cached
        return execution.run()

    def select(self, steps: str | Sequence[str | int]) -> Pipeline:
        """Return the pipeline of the chosen steps, in their own order: `'plan,train'`, `'1:3'` or a list of names."""
        return self._subset(select_labels(steps, list(self._plan.chosen)))

    @overload
    def __getitem__(self, key: str | int) -> Component: ...
    @overload
    def __getitem__(self, key: slice) -> Pipeline: ...
    def __getitem__(self, key: str | int | slice) -> Component | Pipeline:
        """Return the step with this name or position, or for a slice the pipeline of these steps."""
        labels = list(self._plan.chosen)
        if isinstance(key, slice):
            return self._subset(labels[key])
        if isinstance(key, str):
            if key not in labels:
                raise PipelineError(f"The pipeline has no step '{key}'. {did_you_mean(key, labels)}")
            return self._plan.steps[key]
        if not -len(labels) <= key < len(labels):
            raise PipelineError(f"The pipeline has no step {key}; it has {len(labels)}, numbered from 0.")
        return self._plan.steps[labels[key]]

    def __len__(self) -> int:
        return len(self._plan.chosen)

    def __iter__(self) -> Iterator[Component]:
        return iter(self.steps.values())

    def _subset(self, labels: Sequence[str]) -> Pipeline:
        if not labels:
            raise PipelineError("A pipeline needs at least one step; these choose none.")
        subset = object.__new__(Pipeline)
        subset._plan = replace(self._plan, chosen=list(labels))
        subset._cache = self._cache
        subset.timings, subset.cached = {}, []
        return subset

    def _active_cache(self) -> StepCache | None:
        if self._cache is None or RankEnvironment.detect().world_size == 1:
            return self._cache
        self._cache.tell("cache", "is not used when several ranks run the pipeline, so that all do the same")
        return None


def _make_cache(
    cache: bool | Sequence[str], labels: list[str], cache_dir: str | Path, cache_pickle: bool
) -> StepCache | None:
    if isinstance(cache, str) or not isinstance(cache, bool | Sequence):
        raise PipelineError(f"cache is {cache!r}; give true, false or a list of steps: {', '.join(labels)}.")
    wanted = (labels if cache else []) if isinstance(cache, bool) else list(cache)
    for label in wanted:
        if label not in labels:
            raise PipelineError(f"cache names the step '{label}', which does not exist. {did_you_mean(label, labels)}")
    if not wanted:
        return None
    from gnomon.pipeline.cache import OutputStore, StepCache

    return StepCache(OutputStore(cache_dir, cache_pickle), frozenset(wanted), set())


def _named(steps: Any) -> dict[str, Component]:
    """Return the steps by label; raise PipelineError for anything that is not components in a list or a mapping."""
    if isinstance(steps, Mapping):
        named = {str(label): step for label, step in steps.items()}
    elif isinstance(steps, Sequence) and not isinstance(steps, str):
        named = dict(zip(_labels(steps), steps, strict=True))
    else:
        raise PipelineError(f"A pipeline takes its steps as a list or a mapping, found {type(steps).__name__}.")
    if not named:
        raise PipelineError("A pipeline needs at least one step; its list of steps is empty.")
    for label, step in named.items():
        _check_step(label, step)
    return named


def _labels(steps: Sequence[Any]) -> list[str]:
    names = [step.name if isinstance(step, Component) else type(step).__name__ for step in steps]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name}-{index}" if name in repeated else name for index, name in enumerate(names)]


def _check_step(label: str, step: Any) -> None:
    if isinstance(step, Component):
        return
    if inspect.isclass(step) and issubclass(step, Component):
        raise PipelineError(f"Step '{label}' is the class {step.__name__}. Make an object of it: {step.__name__}(...).")
    derive = "Derive it from gnomon.component.Component."
    hint = "Did its mapping lose its _target_?" if isinstance(step, Mapping) else derive
    raise PipelineError(f"Step '{label}' is a {type(step).__name__}, not a component. {hint}")
