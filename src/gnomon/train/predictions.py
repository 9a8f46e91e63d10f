"""What a predictor returns, and the file that it can be written to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from gnomon.errors import ConfigError, DataError, did_you_mean

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Predictions:
    """One prediction per sample, in the order of the dataset."""

    values: Tensor
    """(num_samples, ...), on the CPU."""
    ids: list[Any] | None = None
    """The names of the samples, where the dataset gives them."""

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.values)

    def by_id(self) -> dict[Any, Tensor]:
        """Return {id: prediction}; without ids, the place in the dataset is the id. Raises DataError for equal ids."""
        ids = list(range(len(self))) if self.ids is None else self.ids
        found = dict(zip(ids, self.values, strict=True))
        if len(found) < len(ids):
            raise DataError(f"Of {len(ids)} samples only {len(found)} have an id of their own. Use `values` and `ids`.")
        return found

    def write(self, path: str | Path) -> Path:
        """Write Parquet, or CSV where the name ends so; raise ConfigError for another ending, and OSError."""
        return self.write_csv(path) if check_ending(path) == ".csv" else self.write_parquet(path)

    def write_parquet(self, path: str | Path) -> Path:
        """Write the columns `id` and `prediction` and return the path; the file appears whole or not at all.

        Predictions of several numbers become arrays. Raises OSError.
        """
        return self._write(path, {"prediction": self.values.numpy()}, pl.DataFrame.write_parquet)

    def write_csv(self, path: str | Path) -> Path:
        """Write the columns `id` and `prediction` and return the path; the file appears whole or not at all.

        Predictions of several numbers become the columns `prediction_0`, `prediction_1`, ... in the order of memory.
        Raises OSError.
        """
        if self.values.dim() == 1:
            return self._write(path, {"prediction": self.values.numpy()}, pl.DataFrame.write_csv)
        rows = self.values.flatten(1).numpy()
        columns = {f"prediction_{index}": rows[:, index] for index in range(rows.shape[1])}
        return self._write(path, columns, pl.DataFrame.write_csv)

    def _write(self, path: str | Path, columns: dict[str, Any], write: Callable[[pl.DataFrame, Path], Any]) -> Path:
        path = Path(path).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = list(range(len(self))) if self.ids is None else self.ids
        temporary = path.with_name(f".{path.name}.tmp")
        write(pl.DataFrame({"id": ids, **columns}), temporary)
        return temporary.replace(path)


def check_ending(path: str | Path) -> str:
    """Return how the name of a file for predictions ends; raise ConfigError for what is not written."""
    ending = Path(path).suffix.lower()
    if ending not in (".parquet", ".csv"):
        raise ConfigError(f"output='{path}' ends neither in .parquet nor in .csv. Name it by the format that it is in.")
    return ending


def transform_of(kind: str, threshold: float) -> Transform:
    """Return what turns the outputs of a batch (batch, ...) into predictions; raise ConfigError for a wrong setting.

    `raw`: the outputs themselves. `multiclass`: the class with the largest output along axis 1, int64.
    `multilabel`: whether the sigmoid of each output reaches `threshold`, bool. `regression`: the outputs, (batch, 1)
    as (batch,).
    """
    if kind not in _TRANSFORMS:
        raise ConfigError(f"kind='{kind}' is unknown. {did_you_mean(kind, _TRANSFORMS)}")
    if not 0.0 < threshold < 1.0:
        raise ConfigError(f"threshold={threshold}; it is a probability, so set it between 0 and 1.")
    return _TRANSFORMS[kind](threshold)


def _multiclass(outputs: Tensor) -> Tensor:
    if outputs.dim() < 2:
        raise DataError(
            f"kind=multiclass needs one output per class, (batch, classes, ...); the model gave {tuple(outputs.shape)}."
        )
    return outputs.argmax(dim=1)


_TRANSFORMS: dict[str, Callable[[float], Transform]] = {
    "raw": lambda _: lambda outputs: outputs,
    "multiclass": lambda _: _multiclass,
    "multilabel": lambda threshold: lambda outputs: outputs.sigmoid() >= threshold,
    "regression": lambda _: lambda outputs: outputs[:, 0] if outputs.shape[1:] == (1,) else outputs,
}


def place(parts: list[Tensor], indices: list[Tensor], valid: list[Tensor], length: int) -> Tensor:
    """Return (length, ...) with each valid row of the ranks' parts at its index; raise DataError if one is missing."""
    order = torch.cat([index[keep] for index, keep in zip(indices, valid, strict=True)])
    if len(order.unique()) != length:
        raise DataError(f"{length} samples were to be predicted, but {len(order.unique())} were.")
    rows = torch.cat([part[keep] for part, keep in zip(parts, valid, strict=True)])
    values = torch.empty((length, *rows.shape[1:]), dtype=rows.dtype)
    values[order] = rows
    return values
