"""Values of items as plain JSON values or files, so that another process can send them later.

It is done at once, because the loop changes what it was given: weights are trained on and figures are closed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gnomon.errors import ConfigError
from gnomon.track.base import Item

CHUNK_BYTES = 2**20


def materialise(item: Item, folder: Path) -> Any:
    """Return the value of `item` as a JSON value, or the path of a file in `folder` that holds it.

    Raises ConfigError for a value that is not of its kind, and OSError for a disk that does not take it.
    """
    return _WAYS[item.kind](item, folder)


def flatten_params(name: str, value: Any) -> dict[str, Any]:
    """Return {dotted name: JSON value} of a parameter or a nested mapping of parameters."""
    if not isinstance(value, Mapping):
        return {name: _json_value(value, "param", name)}
    entries: dict[str, Any] = {}
    for key, inner in value.items():
        entries.update(flatten_params(f"{name}.{key}" if name else str(key), inner))
    return entries


def safe_name(name: str) -> str:
    """Return `name` with nothing in it that a file name cannot have."""
    return re.sub(r"[^\w.\-]+", "_", name).strip("._") or "item"


def _text(item: Item, folder: Path) -> str:
    if not isinstance(item.value, str):
        raise _wrong(item, "a string")
    return item.value


def _dict(item: Item, folder: Path) -> Any:
    if not isinstance(item.value, Mapping):
        raise _wrong(item, "a mapping")
    return _json_value(dict(item.value), "dict", item.name)


def _figure(item: Item, folder: Path) -> Path:
    if not hasattr(item.value, "savefig"):
        raise _wrong(
            item, "a Matplotlib figure (write a Plotly figure to an HTML file, and record that as an artifact)"
        )
    return _into(folder, f"{safe_name(item.name)}.png", lambda path: item.value.savefig(path, format="png"))


def _image(item: Item, folder: Path) -> Path:
    image = _pillow_image(item)
    return _into(folder, f"{safe_name(item.name)}.png", lambda path: image.save(path, format="png"))


def _pillow_image(item: Item) -> Any:
    import numpy as np
    from PIL import Image

    if isinstance(item.value, Image.Image):
        return item.value
    if hasattr(item.value, "detach"):
        array = item.value.detach().cpu().numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    else:
        array = np.asarray(item.value)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if (
        array.dtype.kind not in "fiub"
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[-1] not in (3, 4))
    ):
        raise _wrong(
            item, "an image of 1, 3 or 4 channels: an array (height, width, channels) or a tensor, channels first"
        )
    if array.dtype != np.uint8:
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise _wrong(item, "an image of bytes, or of numbers from 0 to 1")
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    return Image.fromarray(array)


def _artifact(item: Item, folder: Path) -> Path:
    """Return the path itself where it is in the run directory, else that of a copy."""
    if not isinstance(item.value, str | Path) or not Path(item.value).exists():
        raise _wrong(item, "the path of a file or folder that exists")
    source = Path(item.value).resolve()
    run_dir = folder.resolve().parents[3]
    if source.is_relative_to(run_dir):
        return source
    target = folder.resolve() / source.name
    folder.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)
    return target


def _model(item: Item, folder: Path) -> Path:
    if not hasattr(item.value, "state_dict"):
        return _artifact(item, folder)
    import torch

    return _into(folder, f"{safe_name(item.name)}.pt", lambda path: torch.save(item.value.state_dict(), path))


def _dataset(item: Item, folder: Path) -> Any:
    if isinstance(item.value, Mapping):
        described = _json_value(dict(item.value), "dataset", item.name)
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        return {"digest": digest, **described}
    path = Path(item.value) if isinstance(item.value, str | Path) else None
    if path is None or not path.is_file():
        raise _wrong(item, "a mapping that describes the data, or the path of a file that exists")
    return {"source": str(path.resolve()), "size_bytes": path.stat().st_size, "digest": file_digest(path)}


def _graph(item: Item, folder: Path) -> Path:
    if not (isinstance(item.value, tuple) and len(item.value) == 2 and callable(item.value[0])):
        raise _wrong(item, "a pair (torch.nn.Module, example of its input)")
    definition = graph_definition(*item.value)
    return _into(folder, f"{safe_name(item.name)}.pb", lambda path: path.write_bytes(definition))


def graph_definition(module: Any, example: Any) -> bytes:
    """Return the traced operators of a PyTorch module as the GraphDef that TensorBoard draws."""
    without_tensorflow()
    try:
        from torch.utils.tensorboard._pytorch_graph import graph
    except ImportError as error:
        raise ConfigError(
            f"Recording a graph needs '{error.name}', which is not installed: pip install 'gnomon[track]'."
        ) from None
    trace: Any = graph
    definition, _ = trace(module, example)
    return bytes(definition.SerializeToString())


def without_tensorflow() -> None:
    """Let TensorBoard do without TensorFlow, whose import takes seconds and memory, unless it is there already."""
    import sys
    from types import ModuleType

    if "tensorflow" not in sys.modules:
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _into(folder: Path, name: str, write: Callable[[Path], Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / name
    write(path)
    return path


def _json_value(value: Any, kind: str, name: str) -> Any:
    if callable(getattr(value, "item", None)):  # numbers of NumPy and PyTorch
        with contextlib.suppress(ValueError, RuntimeError):  # an array of several is refused below
            value = value.item()
    if isinstance(value, Path):
        return str(value)
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        raise ConfigError(
            f"The {kind} '{name}' has a value of type {type(value).__name__}, which is not JSON. "
            "Give numbers, strings, lists and mappings."
        ) from None
    return value


def _wrong(item: Item, expected: str) -> ConfigError:
    return ConfigError(f"The {item.kind} '{item.name}' must be {expected}; found {_describe(item.value)}.")


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} of shape {tuple(shape)} and type {getattr(value, 'dtype', '?')}"
    return repr(value) if isinstance(value, str | Path | int | float) else type(value).__name__


_WAYS: dict[str, Callable[[Item, Path], Any]] = {
    "text": _text, "dict": _dict, "figure": _figure, "image": _image, "artifact": _artifact, "model": _model,
    "dataset": _dataset, "graph": _graph,
}  # fmt: skip
