"""What the readers of files share: which keys make a sample, and tensors from what libraries return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnomon.errors import DataError, did_you_mean

NUMERIC_KINDS = "biufc"
Keys = Sequence[str] | Mapping[str, str]
Array = NDArray[Any]


def read_keys(keys: Keys, what: str) -> dict[str, str]:
    """Return {name in the sample: key in the file}; raise DataError for none, or for a plain text."""
    if isinstance(keys, str) or not isinstance(keys, Sequence | Mapping) or not keys:
        raise DataError(f"{what} is {keys!r}; give a list such as ['image', 'label'], or {{name: key in the file}}.")
    named = dict(keys) if isinstance(keys, Mapping) else {key: key for key in keys}
    if len(named) < len(keys):
        raise DataError(f"{what} names one key twice: {', '.join(keys)}.")
    return named


def check_key(key: str, present: Iterable[str], where: str) -> None:
    """Raise DataError, with the nearest name, unless `key` is among those that `where` has."""
    present = list(present)
    if key not in present:
        raise DataError(f"{where} has no '{key}'. {did_you_mean(key, present) or 'It holds nothing at all.'}")


def to_tensor(value: Any) -> Tensor:
    """Return a tensor that owns its memory, of the same type in the machine's byte order."""
    array = np.asarray(value)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def check_numeric(dtype: np.dtype[Any], where: str) -> None:
    """Raise DataError for an array that no tensor can hold."""
    if dtype.kind not in NUMERIC_KINDS:
        raise DataError(f"{where} is of type {dtype}, which no tensor can hold. Choose arrays of numbers.")


def make_sample(values: Mapping[str, Any], as_tuple: bool) -> Any:
    """Return the values as they are named, or as a tuple in their order."""
    return tuple(values.values()) if as_tuple else dict(values)


def expand_paths(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the files that a path, a glob or a list of both means, in order of name; raise DataError for none."""
    listed = [path] if isinstance(path, str | Path) else list(path)
    found: list[Path] = []
    for item in listed:
        pattern = Path(item).expanduser()
        matches = [pattern] if pattern.exists() else sorted(Path(pattern.anchor).glob(_below_anchor(pattern)))
        if not matches:
            raise DataError(f"'{item}' does not exist, and as a pattern it matches no file. Check the path.")
        found += matches
    if not found:
        raise DataError("No path was given. Set it to a file, or to a pattern such as 'data/*.h5'.")
    return found


def _below_anchor(pattern: Path) -> str:
    return pattern.relative_to(pattern.anchor).as_posix()


def check_lengths(lengths: Mapping[str, int], where: str) -> int:
    """Return the number of samples; raise DataError unless all arrays have the same, at least one."""
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"'{key}' has {length}" for key, length in lengths.items())
        raise DataError(f"The arrays of {where} need one number of samples along their first axis: {listed}.")
    length = next(iter(lengths.values()))
    if length == 0:
        raise DataError(f"{where} has no samples: '{next(iter(lengths))}' is empty.")
    return length
