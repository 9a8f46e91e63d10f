"""What a step returned as JSON and files, and back. Reading them runs no code (pickle is another matter, see there)."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from gnomon.pipeline.cache.fingerprint import fingerprint
from gnomon.runtime.run_directory import RunDirectory
from gnomon.spec._noun import Noun

Write = Callable[[bytes, str], str]
"""Keeps the bytes of an object with a suffix such as '.npy'; returns the name by which they are found again."""
Read = Callable[[str], bytes]


class NotStorableError(Exception):
    """A value that has no safe form in files; the message says which and what to do."""


class DamagedError(Exception):
    """A stored value that cannot be read back, or that refers to something that is gone."""


def encode(value: Any, write: Write, allow_pickle: bool = False) -> Any:
    """Return JSON values that stand for `value`, with its arrays handed to `write`; raise NotStorableError."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return {type(value).__name__: [encode(item, write, allow_pickle) for item in value]}
    if type(value) is dict:
        items = [[encode(each, write, allow_pickle) for each in item] for item in value.items()]
        return {"dict": items}
    if isinstance(value, Noun):
        return {"noun": f"{type(value).__module__}:{type(value).__qualname__}", "value": value.to_mapping()}
    if isinstance(value, RunDirectory):
        return {"run": str(value.path.absolute()), "given": str(value.path)}
    if isinstance(value, Path):
        return {"path": str(value), "content": _content(value)}
    stored = _encode_bulk(value, write)
    if stored is None and allow_pickle:
        stored = {"pickle": write(_pickled(value), ".pickle")}
    if stored is None:
        raise NotStorableError(
            f"a {type(value).__module__}.{type(value).__qualname__} has no safe form in files "
            "(cache_pickle: true stores it as pickle, which runs code when it is read)"
        )
    return stored


def decode(stored: Any, read: Read, allow_pickle: bool = False) -> Any:
    """Return the value that `encode` was given; raise DamagedError where that is not possible any more."""
    if not isinstance(stored, dict):
        return stored
    kind = next(iter(stored), "")
    content: Any = stored.get(kind)
    if kind in ("list", "tuple"):
        items = [decode(item, read, allow_pickle) for item in content]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {decode(key, read, allow_pickle): decode(value, read, allow_pickle) for key, value in content}
    if kind == "pickle" and not allow_pickle:
        raise DamagedError("it is a pickle, which cache_pickle: false does not read")
    decoders: dict[str, Callable[[dict[str, Any], Read], Any]] = {
        "noun": _decode_noun, "run": _decode_run, "path": _decode_path, "bytes": lambda node, read: read(node["bytes"]),
        "array": _decode_array, "frame": _decode_frame, "tensor": _decode_tensor,
        "pickle": _decode_pickle,
    }  # fmt: skip
    if kind not in decoders:
        raise DamagedError(f"it has the kind '{kind}', which this gnomon does not know")
    return decoders[kind](stored, read)


def _encode_bulk(value: Any, write: Write) -> dict[str, Any] | None:
    import numpy as np

    if type(value) is bytes:
        return {"bytes": write(value, ".bin")}
    if isinstance(value, np.generic) or type(value) is np.ndarray:
        return _encode_array(value, write)
    polars = sys.modules.get("polars")
    if polars is not None and type(value) is polars.DataFrame:
        return _encode_frame(value, write)
    torch = sys.modules.get("torch")
    if torch is not None and type(value) is torch.Tensor:
        return _encode_tensor(value, write)
    return None


def _encode_array(value: Any, write: Write) -> dict[str, Any] | None:
    import numpy as np

    if value.dtype.hasobject:
        return None
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=False)
    return {"array": write(buffer.getvalue(), ".npy"), "scalar": isinstance(value, np.generic)}


def _decode_array(node: dict[str, Any], read: Read) -> Any:
    import numpy as np

    array = np.load(io.BytesIO(read(node["array"])), allow_pickle=False)
    return array[()] if node["scalar"] else array


def _encode_frame(value: Any, write: Write) -> dict[str, Any] | None:
    import polars

    if polars.Object in value.schema.dtypes():
        return None
    buffer = io.BytesIO()
    value.write_parquet(buffer)
    return {"frame": write(buffer.getvalue(), ".parquet")}


def _decode_frame(node: dict[str, Any], read: Read) -> Any:
    import polars

    return polars.read_parquet(io.BytesIO(read(node["frame"])))


def _encode_tensor(value: Any, write: Write) -> dict[str, Any] | None:
    try:
        from safetensors.torch import save
    except ModuleNotFoundError:
        raise NotStorableError("storing a tensor needs safetensors: pip install safetensors") from None
    if value.requires_grad or value.layout != sys.modules["torch"].strided or value.device.type == "meta":
        return None
    data = save({"tensor": value.cpu().contiguous()})
    return {"tensor": write(data, ".safetensors"), "device": str(value.device)}


def _decode_tensor(node: dict[str, Any], read: Read) -> Any:
    from safetensors.torch import load

    try:
        return load(read(node["tensor"]))["tensor"].to(node["device"])
    except RuntimeError:
        raise DamagedError(f"it was on {node['device']}, which is not there now") from None


def _decode_noun(node: dict[str, Any], read: Read) -> Any:
    module, _, name = node["noun"].partition(":")
    if module.partition(".")[0] != "gnomon" and module not in sys.modules:  # a file must not make us import things
        raise DamagedError(f"it is a {name} of '{module}', which is not imported")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, Noun)):
        raise DamagedError(f"'{node['noun']}' is no noun")
    return found.from_mapping(node["value"])


def _decode_run(node: dict[str, Any], read: Read) -> Any:
    if not Path(node["run"]).is_dir():
        raise DamagedError(f"the run directory '{node['run']}' is gone")
    return RunDirectory(node["given"] if Path(node["given"]).is_dir() else node["run"])


def _decode_path(node: dict[str, Any], read: Read) -> Any:
    path = Path(node["path"])
    if _content(path) != node["content"]:
        raise DamagedError(f"'{path}' has changed or is gone")
    return path


def _content(path: Path) -> str:
    """Return what tells whether a path still leads to the same thing: the content of a file, else what it is."""
    if path.is_file():
        return fingerprint(path)
    return "folder" if path.is_dir() else "nothing"


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:
        raise NotStorableError(f"a {type(value).__qualname__} cannot be pickled either ({error})") from None


def _decode_pickle(node: dict[str, Any], read: Read) -> Any:
    try:
        return pickle.loads(read(node["pickle"]))
    except DamagedError:
        raise
    except Exception as error:  # whatever the code in it raises
        raise DamagedError(f"it is a pickle that cannot be read ({type(error).__name__}: {error})") from None
