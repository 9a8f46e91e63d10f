"""Fingerprints of values, settings and code: equal exactly where a step would do the same work."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from gnomon.component import Component, settings_of
from gnomon.config import description_of
from gnomon.runtime.run_directory import RunDirectory
from gnomon.spec._noun import Noun

WHOLE_FILE_BYTES = 256 * 2**20
"""Larger files are compared by size and time of change instead of by content."""

_PLAIN = (bool, int, float, str, type(None))


class NoFingerprintError(Exception):
    """A value that cannot be compared with that of an earlier run; the message says where it is and what it is."""


def fingerprint(value: Any, where: str = "it") -> str:
    """Return the SHA-256 of a value, as hexadecimal text; raise NoFingerprintError where it has no fixed content.

    Text and paths that name an existing file also stand for what is in the file.
    """
    return hashlib.sha256(json.dumps(canonical(value, where), sort_keys=True).encode()).hexdigest()


def canonical(value: Any, where: str) -> Any:
    """Return JSON values that are equal for two values exactly when these mean the same to a step."""
    if isinstance(value, str | Path):
        return _text_or_file(value)
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list | tuple):
        return {type(value).__name__: [canonical(item, f"{where}[{index}]") for index, item in enumerate(value)]}
    if isinstance(value, Mapping):
        return {"mapping": [[canonical(key, where), canonical(item, f"{where}.{key}")] for key, item in value.items()]}
    if isinstance(value, set | frozenset):
        return {"set": sorted(fingerprint(item, where) for item in value)}
    if isinstance(value, bytes):
        return {"bytes": hashlib.sha256(value).hexdigest()}
    return _canonical_object(value, where)


def _canonical_object(value: Any, where: str) -> Any:
    if isinstance(value, Component):
        return canonical_component(value, where)
    if isinstance(value, Noun):
        return {"noun": _name(type(value)), "value": value.to_mapping()}
    if isinstance(value, RunDirectory):
        return {"run": str(value.path)}
    if isinstance(value, Enum):
        return {"enum": _name(type(value)), "member": value.name}
    if isinstance(value, functools.partial):
        return {"partial": canonical([value.func, list(value.args), value.keywords], where)}
    if inspect.isclass(value) or inspect.isroutine(value):
        return {"code": code_of(value, where)}
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"dataclass": code_of(type(value), where), "fields": canonical(fields, where)}
    array = _canonical_array(value)
    if array is not None:
        return array
    described = description_of(value)
    if described is not None:
        code = [code_of(target, where) for target in described.targets]
        return {"object": canonical(described.mapping, where), "code": code}
    raise NoFingerprintError(f"{where} is a {_name(type(value))}, which cannot be compared with that of an earlier run")


def canonical_component(component: Component, where: str) -> Any:
    """Return the class of a component, the code behind it and its settings, as JSON values."""
    settings = settings_of(component)
    if settings is None:
        raise NoFingerprintError(f"the settings of {where} ({type(component).__name__}) are not known")
    return {
        "component": code_of(type(component), where),
        "settings": {key: canonical(value, f"setting '{key}' of {where}") for key, value in settings.items()},
    }


def code_of(found: Any, where: str) -> Any:
    """Return the qualified name of a class or function, with the digests of the files that define it and its bases."""
    if "<lambda>" in getattr(found, "__qualname__", "") or "<locals>" in getattr(found, "__qualname__", ""):
        raise NoFingerprintError(f"{where} uses '{_name(found)}', which is defined inside a function")
    bases = found.__mro__ if inspect.isclass(found) else (found,)
    modules = {str(getattr(base, "__module__", "builtins")) for base in bases}
    digests = {}
    for module in sorted(modules):
        top = module.partition(".")[0]
        if top not in sys.stdlib_module_names:
            digests[module] = _module_digest(module, top, where)
    return {"name": _name(found), "files": digests}


def _module_digest(module: str, top: str, where: str) -> str:
    release = getattr(sys.modules.get(top), "__version__", None)
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_file():
        if release is None:
            raise NoFingerprintError(f"{where} is defined in '{module}', which has no source file")
        return str(release)
    return f"{release} {_file_digest(Path(file))}"


def _text_or_file(value: str | Path) -> Any:
    plain = str(value) if isinstance(value, str) else {"path": str(value)}
    try:
        path = Path(value)
        if not value or not path.is_file():
            return plain
        return {"path": str(value), "content": _file_digest(path)}
    except (OSError, ValueError):  # text too long or with a null byte, or a file that may not be read
        return plain


def _file_digest(path: Path) -> str:
    status = path.stat()
    if status.st_size > WHOLE_FILE_BYTES:
        return f"{status.st_size} {status.st_mtime_ns}"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical_array(value: Any) -> Any:
    """Return the type, shape and digest of an array or tensor on the CPU, and None for anything else."""
    import numpy as np

    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.device.type == "meta":
            return None
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return {"tensor": str(value.dtype), "shape": list(value.shape), "data": hashlib.sha256(data).hexdigest()}
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(value, polars.DataFrame):
        if polars.Object in value.schema.dtypes():
            return None
        columns = [[name, str(kind)] for name, kind in value.schema.items()]
        return {"frame": columns, "data": hashlib.sha256(value.write_ipc(None).getvalue()).hexdigest()}
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        return {"array": repr(value.dtype), "shape": list(value.shape), "data": hashlib.sha256(data).hexdigest()}
    return None


def _name(found: Any) -> str:
    return f"{found.__module__}.{getattr(found, '__qualname__', type(found).__qualname__)}"
