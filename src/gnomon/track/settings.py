"""What a tracker is told: which ranks, how often, which kinds, and where to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gnomon.spec import Noun
from gnomon.track.base import Kind

ALL_RANKS = -1


class RankSettings(Noun):
    """A tracker by name, and the ranks that it tracks."""

    name: str
    ranks: Annotated[int, Field(ge=ALL_RANKS)] | tuple[NonNegativeInt, ...] = Field(
        default=0, description="a rank, a list of ranks, or -1 for all"
    )

    def wants_rank(self, rank: int) -> bool:
        """Return whether `rank` is tracked."""
        return rank in self.ranks if isinstance(self.ranks, tuple) else self.ranks in (ALL_RANKS, rank)

    @property
    def leader(self) -> int:
        """The lowest rank that is tracked."""
        return min(self.ranks) if isinstance(self.ranks, tuple) else max(self.ranks, 0)

    @model_validator(mode="after")
    def _check_ranks(self) -> Self:
        if self.ranks == ():
            raise ValueError("ranks is an empty list; name at least one rank, or leave the tracker out")
        return self


class TrackerSettings(RankSettings):
    """The settings that every tracker has."""

    every: PositiveInt | Literal["epoch"] = Field(
        default=1, description="training rows: those of every n-th step, or none but those of whole epochs"
    )
    kinds: tuple[Kind, ...] | None = Field(default=None, description="what it is given; null: all that it can take")
    close_timeout_s: PositiveFloat = Field(default=30.0, description="how long the end of a run waits for the rest")

    def wants_row(self, row: Mapping[str, Any]) -> bool:
        """Return whether the row is to be sent: rows of epochs and evaluations always are."""
        if self.kinds is not None and "metric" not in self.kinds:
            return False
        if is_summary(row):
            return True
        return self.every != "epoch" and row.get("step", 0) % self.every == 0

    def wants_item(self, kind: Kind, kinds: frozenset[Kind]) -> bool:
        """Return whether items of `kind` are to be sent by a tracker that can take `kinds`."""
        return kind in kinds and (self.kinds is None or kind in self.kinds)


def is_summary(row: Mapping[str, Any]) -> bool:
    """Return whether the row sums something up: it ends an epoch ("epoch") or an evaluation ("eval_...")."""
    return "epoch" in row or any(key.startswith("eval_") for key in row)


class TensorBoardSettings(TrackerSettings):
    """TensorBoard event files."""

    log_dir: str | None = Field(default=None, description="null: the folder tensorboard of the run directory")


class MLflowSettings(TrackerSettings):
    """An MLflow tracking server, or a database file."""

    tracking_uri: str | None = Field(
        default=None, description="null: MLFLOW_TRACKING_URI, else the file mlruns.db of the run directory"
    )
    experiment_name: str = "gnomon"
    run_name: str | None = Field(default=None, description="null: the name of the run directory")
    parent_run_id: str | None = Field(default=None, description="a run under which this one is put, as a trial is")


class WandbSettings(TrackerSettings):
    """Weights & Biases."""

    project: str = "gnomon"
    entity: str | None = None
    run_name: str | None = Field(default=None, description="null: the name of the run directory")
    mode: Literal["online", "offline"] | None = Field(default=None, description="null: WANDB_MODE, else online")
    tags: tuple[str, ...] = ()


class ProvSettings(TrackerSettings):
    """A W3C PROV-JSON document."""

    namespace: str = Field(default="https://example.org/gnomon/", description="URI under which the run is named")
