"""The interface of every tracker, and the kinds of things that one can be given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from gnomon.errors import ConfigError

Kind = Literal["metric", "param", "figure", "image", "text", "dict", "artifact", "model", "dataset", "graph"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One thing to be tracked that is not a row of metrics. Names may have slashes; `time_s` is Unix time.

    What `value` is to be when you record it:

    - metric: a number (it needs a step)
    - param: a JSON value, or a mapping of names to such
    - figure: a Matplotlib figure
    - image: a NumPy array (height, width[, channels]), a tensor (channels, height, width) or a Pillow image
    - text: a string; dict: a mapping of JSON values
    - artifact: the path of a file or folder
    - model: a `torch.nn.Module`, of which the weights are kept, or the path of a checkpoint
    - dataset: a mapping that describes the data (source, samples, ...), or the path of a file
    - graph: a pair of a `torch.nn.Module` and an example of its input
    """

    kind: Kind
    name: str
    value: Any
    step: int | None = None
    time_s: float | None = None


class Tracker(ABC):
    """Takes what a run reports. A tracker never stops a run: its troubles are warnings.

    A subclass that talks to something slow may block and raise as it likes: it is run in a process of its own, which
    reads what the run has written (see `gnomon.track.forward`). There, the values of items are plain JSON values, or
    paths: PNG files of figures and images, files or folders of artifacts and models, a GraphDef file of a graph.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"metric"})
    """What it can take; anything else is refused."""

    requires: ClassVar[tuple[str, ...]] = ()
    """The modules that must be installed for it."""

    in_loop: ClassVar[bool] = False
    """True for one that is quick and never blocks, so that the training loop itself can call it."""

    @abstractmethod
    def log(self, row: Mapping[str, Any]) -> None:
        """Take one row: a training row has "loss", an evaluation row "eval_loss", both have "step"."""

    def record(self, item: Item) -> None:
        """Take one item; raise ConfigError for a kind that is not among `kinds`."""
        raise unsupported_kind(type(self).__name__, item.kind, self.kinds)

    def flush(self) -> None:  # noqa: B027 -- most have nothing to do
        """Send what was taken so far; raise whatever shows that it did not arrive."""

    @abstractmethod
    def close(self) -> None:
        """Send what is left and let go of files; harmless when called twice."""


class ItemRejectedError(Exception):
    """Raised by `record` for an item that the backend will never take: it is left out instead of tried again."""


class NotReadyError(Exception):
    """Raised while something that will come by itself, such as the run of another rank, is not there yet."""


def unsupported_kind(tracker: str, kind: str, kinds: frozenset[Kind]) -> ConfigError:
    """Return the error for an item of a kind that the tracker cannot take."""
    supported = ", ".join(name for name in KINDS if name in kinds)
    others = "" if kind in KINDS else f" Kinds there are: {', '.join(KINDS)}."
    return ConfigError(f"{tracker} does not take items of kind '{kind}'. It takes: {supported}.{others}")
