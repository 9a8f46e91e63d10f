"""Weights & Biases: online, or offline into the run directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from gnomon.track.base import Item, Kind, Tracker, unsupported_kind
from gnomon.track.context import TrackerContext
from gnomon.track.materialise import safe_name
from gnomon.track.rows import metrics_of
from gnomon.track.settings import WandbSettings


class WandbTracker(Tracker):
    """Logs each row at its own step; parameters become the config, and a dict goes to the summary.

    W&B keeps what it was given on its own disk and sends it in its own time. With several ranks, each has a run, all in
    one group.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset(
        {"metric", "param", "figure", "image", "text", "dict", "artifact", "model", "dataset"}
    )
    requires = ("wandb",)
    settings = WandbSettings

    def __init__(self, settings: WandbSettings, context: TrackerContext) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # a run tells nobody but its trackers
        import wandb

        self._memory = context.memory
        name = settings.run_name or context.run.path.resolve().name
        is_alone = context.world_size == 1
        self._run: Any = wandb.init(
            project=settings.project,
            entity=settings.entity,
            name=name if is_alone else f"{name}/worker_{context.rank}",
            group=None if is_alone else name,
            id=self._memory.setdefault("run_id", context.uid),
            resume="allow",
            mode=settings.mode,
            dir=str(context.run.path),
            tags=settings.tags,
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, row: Mapping[str, Any]) -> None:
        """Log the numbers of the row at its step."""
        self._memory["last_step"] = max(row.get("step") or 0, self._last_step)
        self._run.log(metrics_of(row), step=row.get("step"))

    def record(self, item: Item) -> None:
        """Log the item, at its step if it has one."""
        import wandb

        if item.kind not in self.kinds or item.kind == "metric":
            raise unsupported_kind("wandb", item.kind, self.kinds)
        if item.kind == "param":
            self._run.config.update({item.name: item.value}, allow_val_change=True)
        elif item.kind == "dict":
            self._run.summary[item.name] = item.value
        elif item.kind == "text":
            self._run.log({item.name: item.value}, step=self._step_of(item))
        elif item.kind in ("figure", "image"):
            self._run.log({item.name: wandb.Image(str(item.value))}, step=self._step_of(item))
        else:
            self._run.log_artifact(_artifact(item))

    def close(self) -> None:
        """Wait until W&B has written, and online sent, everything."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    @property
    def _last_step(self) -> int:
        return int(self._memory.get("last_step", 0))

    def _step_of(self, item: Item) -> int:
        """Return the step of an item; the newest for one that comes late, because W&B drops what goes back."""
        self._memory["last_step"] = max(item.step or 0, self._last_step)
        return self._last_step


def _artifact(item: Item) -> Any:
    import wandb

    name = safe_name(item.name.replace("/", "-"))
    if item.kind == "dataset":
        return wandb.Artifact(name, type="dataset", metadata=dict(item.value))
    artifact = wandb.Artifact(name, type=item.kind, metadata={} if item.step is None else {"step": item.step})
    if item.value.is_dir():
        artifact.add_dir(str(item.value))
    else:
        artifact.add_file(str(item.value))
    return artifact
