"""The base of every noun: frozen, keyword-only, validated, and JSON and YAML in and out without loss."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    WrapSerializer,
    field_validator,
)

from gnomon.documents import load_json, load_yaml
from gnomon.errors import SpecError, did_you_mean

MAX_FILE_BYTES = 64 * 2**20
FILE_SUFFIXES = (".yaml", ".yml", ".json")
_MAX_ERRORS = 10

# of these pydantic says which Python class it expects
_PLAIN = {
    **dict.fromkeys(("model_type", "mapping_type", "dict_type"), "expected a mapping of keys to values"),
    **dict.fromkeys(("tuple_type", "list_type"), "expected a list"),
}

_MAX_TEXT = 100  # characters of a value that errors repeat
_REPR = reprlib.Repr()
_REPR.maxlevel = 2
_REPR.maxstring = _REPR.maxother = _MAX_TEXT

# PyYAML writes these unescaped but reads them as a folded line
_UNICODE_LINE_BREAKS = "\x85\u2028\u2029"

K = TypeVar("K")
V = TypeVar("V")

FrozenMap = Annotated[
    Mapping[K, V],
    AfterValidator(lambda value: MappingProxyType(dict(value))),
    WrapSerializer(lambda value, handler: handler(dict(value))),
]
"""A mapping that cannot be changed after validation."""


class Noun(BaseModel):
    """A frozen, validated description. Unknown keys are errors that name the nearest valid one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_for_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where only a number makes sense, of which pydantic would make 1 and 0."""
        if _holds_truth(value) and _is_numeric(cls, str(info.field_name)):
            raise ValueError("give a number, not true or false")
        return value

    @classmethod
    def from_mapping(cls, data: Any, where: str = "") -> Self:
        """Return the noun that `data` describes; raise SpecError naming `where` and every wrong key."""
        if not isinstance(data, Mapping):
            raise SpecError(f"{_prefix(cls, where)}expected a mapping of keys to values, found {type(data).__name__}.")
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise SpecError(_prefix(cls, where) + _explain(cls, error)) from None

    @classmethod
    def from_options(cls, values: Mapping[str, Any], options: Mapping[str, str]) -> Self:
        """Return the noun with the values of command-line options; raise SpecError with their names.

        options: {key of `values`: the option that gave it}
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise SpecError(_explain(cls, error, options)) from None

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON values (dicts, lists, numbers, strings)."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """Return indented JSON."""
        return json.dumps(self.to_mapping(), indent=2)

    def to_yaml(self) -> str:
        """Return YAML with the fields in their order of declaration."""
        mapping = self.to_mapping()
        text = yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True)
        if any(mark in text for mark in _UNICODE_LINE_BREAKS):
            return yaml.safe_dump(mapping, sort_keys=False)
        return text

    def save(self, path: str | Path) -> Path:
        """Write YAML or JSON, by suffix, atomically; return the path."""
        path = Path(path)
        text = self.to_json() + "\n" if path.suffix == ".json" else self.to_yaml()
        return write_atomically(path, text)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read YAML or JSON; raise SpecError for a missing, malformed or oversized file."""
        return cls.from_mapping(read_mapping(path), where=str(path))


def write_atomically(path: Path, text: str) -> Path:
    """Write text to a temporary neighbour and rename it over `path`, so that no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def names_file(text: str) -> bool:
    """Return whether a text is the path of a description, and not a name of the catalog."""
    return "/" in text or text.endswith(FILE_SUFFIXES)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML or JSON file; raise SpecError when it is missing, malformed or too large.

    Depth and values have the limits of `gnomon.documents`.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise SpecError(f"'{path}' is {'a folder' if path.is_dir() else 'no regular file'}. Give a YAML or JSON file.")
    if not path.is_file():
        raise SpecError(f"File not found: '{path}' (looked in {Path.cwd()}). Give a path to a YAML or JSON file.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise SpecError(f"'{path}' has {path.stat().st_size} bytes; descriptions are limited to {MAX_FILE_BYTES}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"'{path}' is not text in UTF-8: {error.reason} at byte {error.start}.") from None
    data = (load_json if path.suffix == ".json" else load_yaml)(text, str(path), SpecError)
    if data is None:
        raise SpecError(f"'{path}' is empty. Give a YAML or JSON file that holds a mapping of keys to values.")
    if not isinstance(data, dict):
        raise SpecError(f"'{path}' must hold a mapping of keys to values, found {type(data).__name__}.")
    return data


def _holds_truth(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_truth(item) for item in value.values())
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(_holds_truth(item) for item in value))


@cache
def _is_numeric(cls: type[BaseModel], field: str) -> bool:
    """Return whether a field takes numbers, alone or in containers, and neither truth values nor nested nouns."""
    found = set(_leaves(cls.model_fields[field].annotation))
    return bool(found & {int, float}) and not any(issubclass(leaf, bool | BaseModel) for leaf in found)


def _leaves(annotation: Any) -> Iterator[type]:
    """Yield the plain types of an annotation: of `tuple[int, ...] | None` int and NoneType, of Literal[0] int."""
    arguments = get_args(annotation)
    for argument in arguments:
        yield from _leaves(argument)
    if not arguments:
        yield annotation if isinstance(annotation, type) else type(annotation)


def _prefix(cls: type, where: str) -> str:
    """Return what an error begins with: where the description stands, and what it is where that does not say so."""
    if not where:
        return f"{cls.__name__}: "
    return f"{where}: " if where.lower() in cls.__name__.lower() else f"{cls.__name__} in {where}: "


def _explain(cls: type[BaseModel], error: ValidationError, options: Mapping[str, str] | None = None) -> str:
    found = error.errors(include_url=False)
    texts = [_explain_one(cls, item, options or {}) for item in found[:_MAX_ERRORS]]
    return "; ".join([*texts, f"and {len(found) - _MAX_ERRORS} more"] if len(found) > _MAX_ERRORS else texts)


def _explain_one(cls: type[BaseModel], item: Any, options: Mapping[str, str]) -> str:
    location = ".".join(_shorten(str(part)) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        fields = _fields_at(cls, item["loc"][:-1])
        return f"unknown key '{location}'. {did_you_mean(_shorten(str(item['loc'][-1])), fields)}"
    if item["type"] == "missing":
        return f"missing key '{location}'"
    message = _PLAIN.get(item["type"], str(item["msg"])).removeprefix("Value error, ")
    if not location:
        return message
    named = options.get(location, f"'{location}'")
    return f"{named} is {_shorten(_REPR.repr(item['input']))}: {message[:1].lower()}{message[1:]}"


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def _fields_at(cls: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Return the field names of the nested model that `location` leads to."""
    fields = cls.model_fields
    for part in location:
        if part not in fields:
            continue
        nested = _nested_model(fields[part].annotation)
        if nested is not None:
            fields = nested.model_fields
    return list(fields)


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _nested_model(argument)
        if found is not None:
            return found
    return None
