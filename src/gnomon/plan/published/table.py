"""Read a table of published results: every value as text, so that one bad value spoils one row and not the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gnomon.errors import PlanError
from gnomon.plan.published.columns import check_columns, misspelt

if TYPE_CHECKING:
    from polars import DataFrame

BLOCK_ROWS = 8192
Row = dict[str, str | None]


class Table:
    """The rows of one file. Iterating yields lists of at most `BLOCK_ROWS` rows as mappings of column to text."""

    def __init__(self, frame: DataFrame, name: str) -> None:
        self._frame, self.name = frame, name

    @property
    def notes(self) -> list[str]:
        """What the user should know of the table: columns that look misspelt."""
        return misspelt(self._frame.columns)

    def __len__(self) -> int:
        return int(self._frame.height)

    def __iter__(self) -> Iterator[list[Row]]:
        for block in self._frame.iter_slices(BLOCK_ROWS):
            yield block.to_dicts()

    def rows(self) -> list[Row]:
        """Return all rows at once."""
        return [row for block in self for row in block]


def read_table(path: Path) -> Table:
    """Return the table in a CSV file; raise PlanError when it is none, lacks a column or repeats an id."""
    import polars
    from polars.exceptions import PolarsError

    if not path.is_file():
        raise PlanError(f"File not found: '{path}'. Give a CSV file of published results.")
    try:
        frame = polars.read_csv(path, infer_schema_length=0)
    except (PolarsError, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise PlanError(f"'{path}' cannot be read as CSV: {reason}. Give a comma-separated text in UTF-8.") from None
    if any("\x00" in column for column in frame.columns):
        raise PlanError(f"'{path}' is text in UTF-16. Give a comma-separated text in UTF-8.")
    try:
        check_columns(frame.columns)
    except PlanError as error:
        raise PlanError(f"'{path}': {error}") from None
    frame = _without_blank_end(frame)
    if frame.height == 0:
        raise PlanError(f"'{path}' has a header and no rows; there is nothing to predict.")
    _check_ids(frame, path)
    return Table(frame, str(path))


def _without_blank_end(frame: DataFrame) -> DataFrame:
    """Return the rows up to the last one with text in it: spreadsheets and editors leave blank lines at the end."""
    import polars

    filled = polars.any_horizontal(polars.all().str.strip_chars().fill_null("") != "")
    last = frame.select(filled.arg_true().max()).item()
    return frame.head(0 if last is None else last + 1)


def _check_ids(frame: DataFrame, path: Path) -> None:
    import polars

    ids = polars.col("id")
    repeated = frame.select(ids).with_row_index("row", offset=1).filter(ids.is_duplicated() & ids.is_not_null())
    if repeated.height:
        name = repeated["id"][0]
        places = ", ".join(str(row) for row in repeated.filter(ids == name)["row"].head(5))
        raise PlanError(
            f"'{path}': the id {name!r} stands in rows {places}; {repeated.height} rows share their ids. "
            "Give every row its own id."
        )
