"""Time an execution, print one line when it is finished, and clean up after it."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from gnomon.component.base import Component
from gnomon.units import format_seconds

Execute = TypeVar("Execute", bound=Callable[..., Any])

_RANK_VARIABLES = ("RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")
_running: ContextVar[Component | None] = ContextVar("running", default=None)
_labels: ContextVar[tuple[str, ...]] = ContextVar("labels", default=())


@dataclass
class Timing:
    """How long an execution took; 0 until it has ended."""

    seconds: float = 0.0


@contextmanager
def monitored(component: Component, label: str | None = None) -> Iterator[Timing]:
    """Time what runs inside, call `cleanup` in any case, and print one line on stderr when it succeeded.

    The line names `label` (default: the component's name), after the steps of outer pipelines that it is part of.
    """
    timing = Timing()
    labels = (*_labels.get(), label or component.name)
    inside, path = _running.set(component), _labels.set(labels)
    started = time.perf_counter()
    try:
        yield timing
    finally:
        timing.seconds = time.perf_counter() - started
        _labels.reset(path)
        _running.reset(inside)
        component.cleanup()
    print_step("✓", ".".join(labels), format_seconds(timing.seconds))


def monitor(execute: Execute) -> Execute:
    """Decorate `execute`, so that it is timed, printed and cleaned up after when a component is used alone.

    The seconds are in `component.last_s` afterwards. In a pipeline, which does the same for every step, it only times.
    """

    @functools.wraps(execute)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            if _running.get() is self:
                return execute(self, *args, **kwargs)
            with monitored(self):
                return execute(self, *args, **kwargs)
        finally:
            self.last_s = time.perf_counter() - started

    return wrapped  # type: ignore[return-value]


def print_step(mark: str, label: str, note: str) -> None:
    """Print one line about a step on stderr, so that stdout stays for results; of several ranks the first does."""
    if next((os.environ[name] for name in _RANK_VARIABLES if name in os.environ), "0") != "0":
        return
    from rich.text import Text

    from gnomon.console import make_console

    color = "green" if mark == "✓" else "yellow"
    line = Text.assemble((f"{mark} ", color), (label, "bold"), f"  {note}")
    make_console(stderr=True).print(line, highlight=False)


def label_here(label: str) -> str:
    """Return `label` after the labels of the outer pipelines that run right now."""
    return ".".join((*_labels.get(), label))
