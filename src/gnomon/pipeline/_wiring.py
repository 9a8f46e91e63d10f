"""Where the inputs of each step come from, and the order that follows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gnomon.errors import PipelineError, did_you_mean

if TYPE_CHECKING:
    import networkx

_PIPELINE_INPUT = re.compile(r"INPUT_ARG#(\d+)")


@dataclass(frozen=True)
class Source:
    """Where one input, or several, come from: outputs of a step, or inputs of the pipeline where `step` is None."""

    step: str | None
    output: int | None = None  # None: all that there are
    parameter: str | None = None  # the name under which `execute` takes it; None: by position

    def __str__(self) -> str:
        if self.step is None:
            return "the pipeline's inputs" if self.output is None else f"INPUT_ARG#{self.output}"
        return self.step if self.output is None else f"{self.step}.{self.output}"


Wiring = Mapping[str, tuple[Source, ...]]
"""The sources of each step, by label."""


def chain(labels: Sequence[str]) -> dict[str, tuple[Source, ...]]:
    """Return the wiring in which each step takes all that the one before returns, the first the pipeline's inputs."""
    return {label: (Source(before),) for before, label in itertools.pairwise((None, *labels)) if label is not None}


def parse_inputs(inputs: Any, labels: Sequence[str]) -> dict[str, tuple[Source, ...]]:
    """Return the wiring that `inputs` describes: {step: reference, list of references or {parameter: reference}}.

    A reference is a step (`split`), one of its outputs (`split.0`), or an input of the pipeline (`INPUT_ARG#0`). Steps
    that `inputs` does not name take nothing. Raises PipelineError for a step or a form that does not exist, or a cycle.
    """
    if not isinstance(inputs, Mapping):
        raise PipelineError(f"inputs is a {type(inputs).__name__}; give a mapping such as {{train: [split.0]}}.")
    for label in inputs:
        if label not in labels:
            raise PipelineError(f"inputs names the step '{label}', which does not exist. {did_you_mean(label, labels)}")
    wiring = {label: _sources(label, inputs.get(label), labels) for label in labels}
    _refuse_cycle(wiring)
    return wiring


def topological_order(wiring: Wiring) -> list[str]:
    """Return the steps so that each comes after those it takes from, otherwise in the order they were written in."""
    import networkx

    position = {label: index for index, label in enumerate(wiring)}
    return list(networkx.lexicographical_topological_sort(as_graph(wiring), key=position.__getitem__))


def independent_groups(wiring: Wiring, chosen: Sequence[str]) -> list[list[str]]:
    """Return the groups of two or more chosen steps of which none needs another, each group after what it needs."""
    import networkx

    generations = networkx.topological_generations(as_graph(wiring).subgraph(chosen))
    return [sorted(group, key=list(chosen).index) for group in generations if len(group) > 1]


def as_graph(wiring: Wiring) -> networkx.DiGraph:
    """Return the graph with an edge from each step to those that take from it."""
    import networkx

    graph = networkx.DiGraph()
    graph.add_nodes_from(wiring)
    graph.add_edges_from((source.step, label) for label in wiring for source in wiring[label] if source.step)
    return graph


def final_steps(wiring: Wiring) -> list[str]:
    """Return the steps that no other step takes from."""
    taken = {source.step for sources in wiring.values() for source in sources}
    return [label for label in wiring if label not in taken]


def _sources(label: str, value: Any, labels: Sequence[str]) -> tuple[Source, ...]:
    if value is None:
        return ()
    items: Iterable[tuple[str | None, Any]]
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = ((None, item) for item in value)
    else:
        items = [(None, value)]
    return tuple(_source(label, parameter, reference, labels) for parameter, reference in items)


def _source(label: str, parameter: str | None, reference: Any, labels: Sequence[str]) -> Source:
    if not isinstance(reference, str):
        raise PipelineError(
            f"inputs.{label} has {reference!r}; name a step, as in 'split', or one of its outputs, as in 'split.0'. "
            "A fixed value is a setting of the step."
        )
    if match := _PIPELINE_INPUT.fullmatch(reference):
        return Source(None, int(match[1]), parameter)
    if reference in labels:
        return Source(reference, None, parameter)
    step, _, output = reference.rpartition(".")
    if step in labels and output.isdecimal():
        return Source(step, int(output), parameter)
    if step in labels:
        raise PipelineError(
            f"inputs.{label} takes '{reference}', but outputs are numbered from 0: write '{step}.0' or '{step}.1'."
        )
    name = step if output.isdecimal() else reference
    raise PipelineError(
        f"inputs.{label} takes from the step '{name}', which does not exist. {did_you_mean(name, labels)}"
    )


def _refuse_cycle(wiring: Wiring) -> None:
    import networkx

    try:
        edges = networkx.find_cycle(as_graph(wiring))
    except networkx.NetworkXNoCycle:
        return
    path = " -> ".join([edges[0][0], *(edge[1] for edge in edges)])
    raise PipelineError(
        f"The steps wait for each other in a cycle: {path} (a -> b: b takes what a returns). "
        "Remove one of these from inputs."
    )
