"""One execution of a pipeline: each step in order, from the cache where it has been done before."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnomon.component import Component, monitored
from gnomon.component.monitor import label_here, print_step
from gnomon.errors import PipelineError
from gnomon.pipeline._failure import marked_by_step
from gnomon.pipeline._fit import Arguments, as_outputs, check_arguments, check_beforehand, check_result, take
from gnomon.pipeline._wiring import Source, Wiring, final_steps

if TYPE_CHECKING:
    from gnomon.pipeline.cache import CacheSession, StepCache


@dataclass(frozen=True)
class Plan:
    """What is to run: all steps, where their inputs come from, and the chosen ones in order.

    In a chain, each step takes what the one before it returns, and chosen steps may be run without those before them.
    """

    steps: Mapping[str, Component]
    wiring: Wiring
    chosen: Sequence[str]
    is_chain: bool


class Execution:
    """Runs the chosen steps once; `timings` (seconds) and `cached` say what has been done so far."""

    def __init__(self, plan: Plan, inputs: tuple[Any, ...], cache: StepCache | None) -> None:
        self._plan = plan
        self._inputs = inputs
        self._wiring = dict(plan.wiring)
        self._cache: CacheSession | None = None if cache is None else cache.open(self._wiring, plan.steps, inputs)
        self._results: dict[str, Any] = {}
        self.timings: dict[str, float] = {}
        self.cached: list[str] = []

    def run(self) -> Any:
        """Return the output of the final step, or {step: output} of several; raise PipelineError for a misfit."""
        self._provide_what_is_not_chosen()
        chosen = {label: self._wiring[label] for label in self._plan.chosen}
        check_beforehand(chosen, self._plan.steps)
        final = final_steps(chosen)
        for label in self._plan.chosen:
            self._run_step(label)
            self._keep_only(final, later=self._plan.chosen[len(self.timings) :])
        if len(final) == 1:
            return self._results[final[0]]
        return {label: self._results[label] for label in final}

    def _run_step(self, label: str) -> None:
        started = time.perf_counter()
        if self._take_from_cache(label):
            self.cached.append(label)
            self.timings[label] = time.perf_counter() - started
            return
        step, sources = self._plan.steps[label], self._wiring[label]
        given = [argument for source in sources for argument in self._take(label, source)]
        check_arguments(label, step, given, sources)
        args = [value for source, value in given if source.parameter is None]
        kwargs = {source.parameter: value for source, value in given if source.parameter is not None}
        with marked_by_step(step, label), monitored(step, label) as timing:
            result = step.execute(*args, **kwargs)
            check_result(label, step, result, self._takers(label))
        self._results[label] = result
        self.timings[label] = timing.seconds
        if self._cache is not None:
            self._cache.save(label, self._results)

    def _take(self, label: str, source: Source) -> Arguments:
        outputs = self._inputs if source.step is None else as_outputs(self._results[source.step])
        return take(label, source, outputs)

    def _takers(self, label: str) -> list[str]:
        return [taker for taker in self._plan.chosen if any(source.step == label for source in self._wiring[taker])]

    def _keep_only(self, final: Sequence[str], later: Sequence[str]) -> None:
        """Let go of results that no later step takes, so that large ones do not stay in memory."""
        needed = {source.step for label in later for source in self._wiring[label]}.union(final)
        self._results = {label: result for label, result in self._results.items() if label in needed}

    def _provide_what_is_not_chosen(self) -> None:
        """Take from the cache what chosen steps need of others; where that is not there, chain them or raise."""
        before: str | None = None
        for label in self._plan.chosen:
            for source in self._wiring[label]:
                if source.step is None or source.step in self._plan.chosen or source.step in self._results:
                    continue
                if self._plan.is_chain and (self._inputs or not self._take_from_cache(source.step)):
                    self._wiring[label] = (Source(before),)
                elif not self._plan.is_chain and not self._take_from_cache(source.step):
                    raise PipelineError(
                        f"Step '{label}' takes what step '{source.step}' returns, which is not among the chosen steps "
                        f"({', '.join(self._plan.chosen)}) and not in the cache. Choose '{source.step}' too, or run "
                        "the whole pipeline with cache: true first."
                    )
            before = label

    def _take_from_cache(self, label: str) -> bool:
        found = None if self._cache is None else self._cache.load(label, self._results)
        if found is None:
            return False
        self._results[label] = found.value
        print_step("✓", label_here(label), "cached")
        return True
