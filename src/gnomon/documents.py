"""Read YAML and JSON that a stranger may have written, within limits on their depth and on what their aliases make."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from gnomon.errors import GnomonError

MAX_DEPTH = 100
MAX_VALUES = 2_000_000


def load_yaml(text: str, where: str, error: type[GnomonError], max_values: int = MAX_VALUES) -> Any:
    """Return the value in YAML text, None where it is empty.

    Raises `error`, which names `where`, for text that is malformed, gives a key twice, is nested more than MAX_DEPTH
    levels deep, refers to itself, or holds more than `max_values` values with each alias counted as what it stands
    for. Depth and values are counted before any is made: loaders call themselves for each level.
    """
    try:
        _Counter(where, error, max_values).count(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as problem:
        raise error(explain_yaml(problem, where)) from None


def load_json(text: str, where: str, error: type[GnomonError]) -> Any:
    """Return the value in JSON text; raise `error`, which names `where`, as `load_yaml` does."""
    try:
        value = json.loads(text)
    except ValueError as problem:
        raise error(f"'{where}' is not valid JSON: {problem}") from None
    except RecursionError:
        raise error(_too_deep(where)) from None
    _check_depth(value, where, error)
    return value


def explain_yaml(problem: yaml.YAMLError, where: str = "") -> str:
    """Return the message for malformed YAML, with its line and column (both from 1); `where` may name the file."""
    mark = getattr(problem, "problem_mark", None) or getattr(problem, "context_mark", None)
    if mark is None:
        return f"'{where}' is not valid YAML: {' '.join(str(problem).split())}. Correct the file."
    text = getattr(problem, "problem", None) or "it cannot be parsed"
    is_syntax = isinstance(problem, yaml.scanner.ScannerError | yaml.parser.ParserError)
    return (
        f"'{where or mark.name}' is not valid YAML: line {mark.line + 1}, column {mark.column + 1}: {text}. "
        f"{'Check the indentation, brackets and quotes there.' if is_syntax else 'Correct it there.'}"
    )


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that refuses a key that is given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Return the mapping; raise ConstructorError for a key that is given twice."""
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.tag == "tag:yaml.org,2002:str":
                if key.value in seen:
                    problem = f"key {reprlib.repr(key.value)} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _checked(kind: str, construct: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a constructor that raises ConstructorError where PyYAML's lets the error of a conversion pass."""

    def constructor(loader: Any, node: Any) -> Any:
        try:
            return construct(loader, node)
        except (ValueError, LookupError, AttributeError):
            problem = f"{reprlib.repr(node.value)} is no {kind} that can be read"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    return constructor


for _kind in ("bool", "int", "float", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _checked(_kind, getattr(_Loader, f"construct_yaml_{_kind}")))


class _Counter:
    """Counts the levels and values of YAML text by its events, of which parsers make one at a time."""

    def __init__(self, where: str, error: type[GnomonError], max_values: int) -> None:
        self._where = where
        self._error = error
        self._max_values = max_values
        self._anchors: list[str | None] = []  # of the containers that are open
        self._totals = [0]  # values so far, of the file and of each container that is open
        self._begun: dict[str, int] = {}  # the line where the container of an anchor begins, while it is open
        self._sizes: dict[str, int] = {}  # values of what each anchor names

    def count(self, text: str) -> None:
        """Raise the error for what exceeds a limit, and YAMLError for malformed text."""
        events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        for event in events:
            if isinstance(event, yaml.CollectionStartEvent):
                self._begin(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor = self._anchors.pop()
                self._begun.pop(anchor or "", None)
                self._add(anchor, self._totals.pop())
            elif isinstance(event, yaml.AliasEvent):
                self._follow(str(event.anchor))
            elif isinstance(event, yaml.ScalarEvent):
                self._add(event.anchor, 1)

    def _begin(self, event: Any) -> None:
        self._anchors.append(event.anchor)
        self._totals.append(1)
        if event.anchor is not None:
            self._begun[event.anchor] = event.start_mark.line + 1
        if len(self._anchors) > MAX_DEPTH:
            raise self._error(_too_deep(self._where))

    def _follow(self, anchor: str) -> None:
        if anchor in self._begun:
            raise self._error(
                f"'{self._where}' refers to itself: line {self._begun[anchor]} begins a value that holds an alias of "
                "it. Remove it."
            )
        self._add(None, self._sizes.get(anchor, 1))  # the loader refuses an alias of nothing

    def _add(self, anchor: str | None, size: int) -> None:
        """Count a value that is complete, as what `anchor` names and as a part of what is open."""
        if anchor is not None:
            self._sizes[anchor] = size
        self._totals[-1] += size
        if self._totals[-1] > self._max_values:
            raise self._error(
                f"'{self._where}' expands to more than {self._max_values} values, with each alias (*name) written out; "
                "that is the limit. Repeat less, or split the file."
            )


def _check_depth(value: Any, where: str, error: type[GnomonError]) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return
        containers = [item.values() if isinstance(item, Mapping) else item for item in level]
        level = [item for container in containers for item in container if isinstance(item, dict | list)]
    raise error(_too_deep(where))


def _too_deep(where: str) -> str:
    return f"'{where}' is nested too deeply: more than {MAX_DEPTH} levels. Write it with fewer levels."
