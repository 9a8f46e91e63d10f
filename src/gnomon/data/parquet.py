"""Rows of Parquet files as samples, held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch.utils.data import Dataset

from gnomon.data._samples import Array, Keys, check_key, expand_paths, make_sample, read_keys, to_tensor
from gnomon.errors import DataError


class ParquetDataset(Dataset[Any]):
    """A sample is {name: tensor}, or a tuple of the tensors in the order of `columns`.

    A column of numbers gives scalars, one of lists or arrays of numbers gives vectors. `columns` lists them or maps
    the name in the sample to the column; `ids` is a column that names the samples. `path` is a file, a pattern such
    as 'data/*.parquet', or a list of them; their rows follow in order of name. Only these columns are read; worker
    processes share them. Raises DataError for a missing column, one that holds no numbers, and missing values.
    """

    draws_random_numbers = False

    def __init__(
        self, path: str | Path | Sequence[str | Path], columns: Keys, *, as_tuple: bool = False, ids: str | None = None
    ) -> None:
        self.paths = expand_paths(path)
        self.columns = read_keys(columns, "columns")
        self.ids = ids
        self._as_tuple = as_tuple
        self._load()

    def _load(self) -> None:
        """Read everything now: polars may not run in a worker that is forked after it ran here."""
        frame = self._read()
        self._length = len(frame)
        if not self._length:
            raise DataError(f"'{self.paths[0]}' has no rows.")
        where = f"'{self.paths[0]}'" if len(self.paths) == 1 else f"the {len(self.paths)} files"
        self._values = {name: _Column(frame[column], where) for name, column in self.columns.items()}
        self._ids = None if self.ids is None else frame[self.ids].to_list()

    def _read(self) -> pl.DataFrame:
        wanted = [*dict.fromkeys([*self.columns.values(), *([self.ids] if self.ids is not None else [])])]
        frames = []
        for path in self.paths:
            try:
                present = pl.read_parquet_schema(path)
                for column in wanted:
                    check_key(column, present, f"'{path}'")
                frames.append(pl.read_parquet(path, columns=wanted).select(wanted))
            except (pl.exceptions.PolarsError, OSError) as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise DataError(f"'{path}' cannot be read as Parquet: {reason}. Check that it is complete.") from None
        try:
            return pl.concat(frames)
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"The files from '{self.paths[0]}' to '{self.paths[-1]}' have different types of columns: "
                f"{str(error).splitlines()[0]}. Write them alike."
            ) from None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        place = range(self._length)[index]
        return make_sample({name: to_tensor(column[place]) for name, column in self._values.items()}, self._as_tuple)

    def sample_ids(self, indices: Sequence[int]) -> list[Any] | None:
        """Return the ids of samples, or None if `ids` was not given."""
        return None if self._ids is None else [self._ids[index] for index in indices]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_values", "_ids", "_length")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load()


class _Column:
    """Values by row: scalars, or vectors that may differ in length."""

    def __init__(self, series: pl.Series, where: str) -> None:
        what = f"Column '{series.name}' of {where}"
        if isinstance(series.dtype, pl.Array):
            series = series.arr.to_list()
        _refuse_nulls(series, what)
        self._ends: Array | None = None
        if isinstance(series.dtype, pl.List):
            self._ends = series.list.len().to_numpy().astype(np.int64).cumsum()
            series = series.filter(series.list.len() > 0).explode()
            _refuse_nulls(series, what)
        if not (series.dtype.is_numeric() or series.dtype == pl.Boolean) or series.dtype.is_decimal():
            raise DataError(f"{what} is of type {series.dtype}, which no tensor can hold. Choose columns of numbers.")
        self._values = series.to_numpy()

    def __getitem__(self, row: int) -> Any:
        if self._ends is None:
            return self._values[row]
        return self._values[(self._ends[row - 1] if row else 0) : self._ends[row]]


def _refuse_nulls(series: pl.Series, what: str) -> None:
    if count := series.null_count():
        raise DataError(f"{what} has {count} missing value(s). Fill them or leave these rows out before training.")
