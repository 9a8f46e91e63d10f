"""A logger for Lightning that hands everything to gnomon's trackers."""

from __future__ import annotations

import atexit
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers.logger import Logger

from gnomon.errors import ConfigError
from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.run_directory import RunDirectory
from gnomon.runtime.versions import describe_environment
from gnomon.track.base import Item, Tracker
from gnomon.track.collection import TrackerCollection, create_trackers
from gnomon.track.registry import parse_trackers


class GnomonLogger(Logger):
    """Forwards metrics, hyperparameters, the graph and checkpoints: `Trainer(logger=GnomonLogger(tracker, run_dir))`.

    `log_model`: True tracks the checkpoints that are there at the end as models, "all" each one when it is written.
    The tracker is closed by whoever made it, because Lightning goes on logging after it has "finalized".
    """

    def __init__(self, tracker: Tracker, run_dir: str | Path, log_model: bool | Literal["all"] = False) -> None:
        super().__init__()
        if log_model not in (True, False, "all"):
            raise ConfigError(f"log_model={log_model!r}. It can be True, False or 'all'.")
        self.tracker = tracker
        self._run_dir = Path(run_dir)
        self._log_model = log_model
        self._checkpoints: Any = None
        self._logged: dict[str, float] = {}

    @classmethod
    def create(cls, run_dir: str | Path, trackers: Any = (), log_model: bool | Literal["all"] = False) -> GnomonLogger:
        """Return a logger with a run directory and trackers of its own, which are closed when Python ends.

        `trackers` is what the setting of that name can be. Raises RunDirectoryError when `run_dir` exists.
        """
        settings = parse_trackers(trackers)
        environment = RankEnvironment.detect()
        run = RunDirectory(run_dir)
        if environment.is_main:
            run = RunDirectory.create(run_dir, "{}\n", describe_environment())
        tracker = create_trackers(settings, run, environment, num_steps=0)
        atexit.register(tracker.close)
        return cls(tracker, run_dir, log_model)

    @property
    def name(self) -> str:
        """Return the name of the run directory."""
        return self._run_dir.resolve().name

    @property
    def version(self) -> str:
        """Return an empty string: a run directory has no versions, and Lightning puts nothing below it then."""
        return ""

    @property
    def save_dir(self) -> str:
        """Return the folder of the run directory, in which Lightning makes `name`/`version`/checkpoints."""
        return str(self._run_dir.resolve().parent)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Give the trackers a row. Rows of steps go without the epoch, which marks the row of an epoch's end."""
        row = dict(metrics)
        if "epoch" in row and not _is_of_an_epoch(row):
            del row["epoch"]
        self.tracker.log({"step": 0 if step is None else step, **row})

    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Track hyperparameters; values that are no JSON are tracked as their text."""
        given = vars(params) if isinstance(params, Namespace) else params
        self.tracker.record(Item(kind="param", name="", value=_plain(given)))

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Track the operators of the model, given an example of its input."""
        example = input_array if input_array is not None else getattr(model, "example_input_array", None)
        if example is not None:
            self.tracker.record(Item(kind="graph", name=type(model).__name__, value=(model, example)))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Track the new checkpoints, or remember to do so at the end."""
        if self._log_model == "all":
            self._track_checkpoints(checkpoint_callback)
        elif self._log_model:
            self._checkpoints = checkpoint_callback

    def finalize(self, status: str) -> None:
        """Track the checkpoints that are left, and flush; `status` is what Lightning says of the run."""
        if status == "failed" and isinstance(self.tracker, TrackerCollection):
            self.tracker.mark_failed()
        if self._checkpoints is not None:
            self._track_checkpoints(self._checkpoints)
            self._checkpoints = None
        self.tracker.flush()

    def _track_checkpoints(self, callback: Any) -> None:
        from lightning.pytorch.loggers.utilities import _scan_checkpoints

        for modified, path, score, tag in _scan_checkpoints(callback, self._logged):
            self._logged[path] = modified
            name = f"checkpoints/{Path(path).stem}"
            self.tracker.record(Item(kind="model", name=name, value=path))
            described = {"path": path, "alias": tag, "score": None if score is None else float(score)}
            self.tracker.record(Item(kind="dict", name=f"{name}-about", value=described))


def _is_of_an_epoch(row: Mapping[str, Any]) -> bool:
    return any(name.endswith("_epoch") or name.startswith(("val", "test", "eval")) for name in row)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
