"""Find the object at a dotted name, importing only below its first part."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from gnomon.errors import ConfigError, did_you_mean


def locate(target: str, key: str) -> Any:
    """Return the object at `target`; raise ConfigError naming the nearest one when there is none."""
    parts = target.split(".")
    found = _import(parts[0], target, key)
    for index, part in enumerate(parts[1:], 1):
        parent, name = ".".join(parts[:index]), ".".join(parts[: index + 1])
        if not hasattr(found, part) and _is_submodule(found, name):
            found = _import(name, target, key)
            continue
        if not hasattr(found, part):
            raise ConfigError(f"'{key}' is '{target}', but '{parent}' has no '{part}'. {_nearest(part, found)}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"'{key}' is '{target}', which is a {type(found).__name__} and not a class or function.")
    return found


def _import(name: str, target: str, key: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            extra = " Install it: pip install 'gnomon[torch]'." if name == "torch" else ""
            raise ConfigError(f"'{key}' is '{target}', but '{name}' is not installed.{extra}") from None
        raise ConfigError(
            f"'{key}' is '{target}', and importing '{name}' needs '{error.name}', which is not installed."
        ) from None
    except Exception as error:
        raise ConfigError(f"'{key}' is '{target}', but '{name}' fails on import: {_describe(error)}.") from error


def _is_submodule(parent: Any, name: str) -> bool:
    if not inspect.ismodule(parent) or parent.__name__ != name.rpartition(".")[0]:
        return False
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _nearest(part: str, parent: Any) -> str:
    names = {name for name in dir(parent) if not name.startswith("_")}
    if inspect.ismodule(parent) and hasattr(parent, "__path__"):
        names |= {module.name for module in pkgutil.iter_modules(parent.__path__) if not module.name.startswith("_")}
    sentence = did_you_mean(part, names)
    return sentence if len(names) <= 40 or sentence.startswith("Did you mean") else "Check its spelling."


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".: ")
