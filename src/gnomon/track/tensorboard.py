"""TensorBoard event files, written with TensorBoard's own library: neither PyTorch nor TensorFlow is imported."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from gnomon.track.base import Item, Kind, Tracker, unsupported_kind
from gnomon.track.context import TrackerContext
from gnomon.track.materialise import without_tensorflow
from gnomon.track.rows import metrics_of, time_of
from gnomon.track.settings import TensorBoardSettings


class TensorBoardTracker(Tracker):
    """Writes one event file per start of the run. Parameters become hyperparameters; a dict is shown as JSON.

    A file begins with a mark that makes readers forget what was written before for the steps that follow, so that
    what a run repeats after a crash counts once.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"metric", "param", "figure", "image", "text", "dict", "graph"})
    requires = ("tensorboard",)
    settings = TensorBoardSettings

    def __init__(self, settings: TensorBoardSettings, context: TrackerContext) -> None:
        without_tensorflow()
        from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-untyped]

        folder = Path(settings.log_dir) if settings.log_dir else context.run.path / "tensorboard"
        if context.world_size > 1:
            folder = folder / f"rank-{context.rank}"
        self._writer = EventFileWriter(str(folder))
        self._params: dict[str, Any] = context.memory.setdefault("params", {})
        self._is_open = True
        self._mark_start(context.next_step)

    def log(self, row: Mapping[str, Any]) -> None:
        """Write the numbers of the row as scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics_of(row).items()]
        self._add(row.get("step"), time_of(row), summary=Summary(value=values))

    def record(self, item: Item) -> None:
        """Write the item."""
        moment = item.time_s or time.time()
        if item.kind == "param":
            self._params[item.name] = item.value
            self._add(None, moment, summary=_hyperparameters(self._params))
        elif item.kind in ("figure", "image"):
            self._add(item.step, moment, summary=_image(item))
        elif item.kind in ("text", "dict"):
            self._add(item.step, moment, summary=_text(item))
        elif item.kind == "graph":
            self._add(None, moment, graph_def=item.value.read_bytes())
        else:
            raise unsupported_kind("tensorboard", item.kind, self.kinds)

    def flush(self) -> None:
        """Write what is buffered to the file."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._is_open:
            self._is_open = False
            self._writer.close()

    def _mark_start(self, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog  # type: ignore[import-untyped]

        if step > 0:
            self._add(step, time.time(), session_log=SessionLog(status=SessionLog.START))

    def _add(self, step: int | None, moment_s: float, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=moment_s, step=step or 0, **content))


def _image(item: Item) -> Any:
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(item.value) as picture:
        width, height, channels = *picture.size, len(picture.getbands())
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=item.value.read_bytes())
    return Summary(value=[Summary.Value(tag=item.name, image=image)])


def _text(item: Item) -> Any:
    from tensorboard.plugins.text.summary_v2 import text_pb  # type: ignore[import-untyped]

    text = item.value
    if item.kind == "dict":
        text = "\n".join(f"    {line}" for line in json.dumps(text, indent=2).splitlines())
    return text_pb(item.name, text)


def _hyperparameters(params: Mapping[str, Any]) -> Any:
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # type: ignore[import-untyped]

    plain = {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in params.items()
    }
    return hparams_pb(plain)
