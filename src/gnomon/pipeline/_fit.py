"""Whether what one step returns is what another takes: how many values, and of which kinds."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gnomon.component import Component
from gnomon.errors import PipelineError
from gnomon.pipeline._annotations import count_outputs, hints_of, matches, show_hint
from gnomon.pipeline._wiring import Source

Arguments = list[tuple[Source, Any]]
"""The inputs of a step in order, each with where it comes from."""


def as_outputs(result: Any) -> tuple[Any, ...]:
    """Return the outputs that a result stands for: None for none, a tuple for several, anything else for one."""
    if result is None:
        return ()
    return result if isinstance(result, tuple) else (result,)


def take(label: str, source: Source, outputs: tuple[Any, ...]) -> Arguments:
    """Return the inputs of step `label` that one source gives; raise PipelineError where it has no such output."""
    if source.output is not None:
        if source.output >= len(outputs):
            raise PipelineError(f"Step '{label}' takes '{source}', but {_gave(source, outputs)}, numbered from 0.")
        return [(source, outputs[source.output])]
    if source.parameter is not None and len(outputs) != 1:
        raise PipelineError(
            f"Step '{label}' takes one value as '{source.parameter}', but {_gave(source, outputs)}. "
            f"Choose one: {source.parameter}: {source}.0"
        )
    return [(source, value) for value in outputs]


def check_arguments(label: str, step: Component, given: Arguments, sources: Sequence[Source]) -> None:
    """Raise PipelineError, which names both steps, when `step.execute` does not take these inputs."""
    bound = _bind(label, step, given, sources)
    hints = hints_of(step.execute)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name, value in bound.arguments.items():
        hint = hints.get(name, Any)
        if bound.signature.parameters[name].kind not in several and not matches(value, hint):
            origin = next(source for source, each in given if each is value)
            giver = f"step '{origin.step}' returned" if origin.step else "the pipeline was given"
            raise PipelineError(
                f"Step '{label}' ({type(step).__name__}) takes '{name}' as {show_hint(hint)}, but {giver} "
                f"a {type(value).__name__}. Change what the earlier one returns, or the annotation of 'execute'."
            )


def check_result(label: str, step: Component, result: Any, takers: Sequence[str]) -> None:
    """Raise PipelineError, which names who takes a result, when it is not what `execute` is annotated with."""
    hint = hints_of(step.execute).get("return", Any)
    if matches(result, hint):
        return
    size = count_outputs(hint)
    found = len(as_outputs(result))
    for_whom = f", which {_join(takers)} would take" if takers else ""
    if size is not None and size != found:
        problem = f"promises {size} output(s) ({show_hint(hint)}) but returned {found}"
    else:
        problem = f"promises {show_hint(hint)} but returned {_describe(result)}"
    raise PipelineError(
        f"Step '{label}' ({type(step).__name__}) {problem}{for_whom}. Correct its 'execute' or the annotation of it."
    )


def check_beforehand(wiring: Mapping[str, Sequence[Source]], steps: Mapping[str, Component]) -> None:
    """Raise PipelineError where annotations alone tell that a step will be given too many or too few inputs."""
    for label, sources in wiring.items():
        promised = [_promised(label, source, steps) for source in sources]
        given = [argument for arguments in promised if arguments is not None for argument in arguments]
        if None not in promised:
            _bind(label, steps[label], given, sources)


def _promised(label: str, source: Source, steps: Mapping[str, Component]) -> Arguments | None:
    """Return placeholders for what a source will give, None where annotations do not say how many."""
    if source.output is not None:
        return [(source, _PLACEHOLDER)]
    size = None if source.step is None else count_outputs(hints_of(steps[source.step].execute).get("return", Any))
    return None if size is None else take(label, source, (_PLACEHOLDER,) * size)


def _bind(label: str, step: Component, given: Arguments, sources: Sequence[Source]) -> inspect.BoundArguments:
    signature = inspect.signature(step.execute)
    args = [value for source, value in given if source.parameter is None]
    kwargs = {source.parameter: value for source, value in given if source.parameter is not None}
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        raise PipelineError(_misfit(label, step, signature, given, sources, error)) from None


class _Placeholder:
    """Stands for a value that is not known before the steps run."""


_PLACEHOLDER = _Placeholder()


def _misfit(
    label: str,
    step: Component,
    signature: inspect.Signature,
    given: Arguments,
    sources: Sequence[Source],
    error: TypeError,
) -> str:
    takes = ", ".join(str(parameter) for parameter in signature.parameters.values()) or "no input"
    values = [value for _, value in given]
    if len(sources) == 1:
        gave = _gave(sources[0], tuple(values))
    elif sources:
        gave = f"{_join(map(str, sources))} give {len(values)} value(s) ({_kinds(values)})"
    else:
        gave = "its inputs name no step"
    return (
        f"Step '{label}' ({type(step).__name__}) takes ({takes}), but {gave}: {error}. "
        "Change the order or the inputs of the steps, or what the earlier one returns."
    )


def _gave(source: Source, outputs: Sequence[Any]) -> str:
    if source.step is None:
        giver = "the pipeline was given"
    else:
        known = all(value is not _PLACEHOLDER for value in outputs)
        giver = f"step '{source.step}' {'returned' if known else 'will return'}"
    return f"{giver} {len(outputs)} value(s) ({_kinds(outputs)})"


def _kinds(values: Sequence[Any]) -> str:
    names = ("?" if value is _PLACEHOLDER else type(value).__name__ for value in values)
    return ", ".join(names) or "nothing"


def _describe(value: Any) -> str:
    return (
        f"({_kinds(value)})"
        if isinstance(value, tuple)
        else "nothing"
        if value is None
        else f"a {type(value).__name__}"
    )


def _join(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
