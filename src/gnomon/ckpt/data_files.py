"""Compare the table of contents of a distributed checkpoint with the data files beside it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath

from gnomon.ckpt.collect import Collector, file_entry, open_regular
from gnomon.ckpt.cover import Coverage
from gnomon.ckpt.distributed import DistributedCheckpoint, Place, Stored, read_metadata
from gnomon.ckpt.pickle_machine import PickleMachine
from gnomon.ckpt.printing import listed, printable
from gnomon.ckpt.torch_files import read_zip
from gnomon.ckpt.walk import Walker
from gnomon.errors import CheckpointError

METADATA_FILE = ".metadata"


def collect_distributed(folder: Path, collector: Collector) -> None:
    """Read the `.metadata` of a folder and compare it with its data files; raise CheckpointError when it is damaged."""
    path = folder / METADATA_FILE
    with open_regular(path) as file:
        try:
            content = read_metadata(file)
            damage = _incomplete(content)
        except CheckpointError as error:
            raise CheckpointError(f"'{path}' cannot be read as a checkpoint. {error}") from None
    collector.add_mentions(content.mentions)
    collector.files.append(file_entry(path, METADATA_FILE, "table of contents"))
    objects = PickleMachine()  # one for all, so that they share its limits
    tensors = Walker(METADATA_FILE)
    for stored in content.stored:
        if stored.tensor is not None:
            tensors.add_tensor(stored.path, stored.tensor)
    collector.add_walker(tensors)
    for stored in content.stored:
        if stored.tensor is None:
            collector.add_walker(_walk_object(folder, stored.path, content.places.get((stored.key, None)), objects))
    collector.add_mentions(objects.mentions, objects.opened)
    collector.damage += damage
    _add_data_files(folder, content, collector)


def _incomplete(content: DistributedCheckpoint) -> list[str]:
    """Return what is wrong with the table of contents itself: parts that lie nowhere, tensors with gaps."""
    coverage = Coverage()
    homeless = [item for item in content.stored if any(part not in content.places for part in item.parts)]
    with_gaps = [
        item
        for item in content.stored
        if item.tensor is not None and not coverage.fills(item.chunks, item.tensor.shape)
    ]
    damage = []
    if homeless:
        damage.append(
            f"The table of contents does not say where these are stored, in whole or in part: {_names(homeless)}."
        )
    if with_gaps:
        damage.append(f"The pieces of these tensors do not cover them: {_names(with_gaps)}.")
    return damage


def _add_data_files(folder: Path, content: DistributedCheckpoint, collector: Collector) -> None:
    """List the data files; files that are missing, cut off or outside of the folder are damage."""
    users: dict[str, list[Stored]] = {}
    needed: dict[str, int] = {}
    for item in content.stored:
        places = [content.places[part] for part in item.parts if part in content.places]
        for file in dict.fromkeys(place.file for place in places):
            users.setdefault(file, []).append(item)
        for place in places:
            needed[place.file] = max(needed.get(place.file, 0), place.offset + place.length)
    for name in sorted(users):
        _add_data_file(folder, name, needed[name], _names(users[name]), collector)


def _add_data_file(folder: Path, name: str, needed: int, users: str, collector: Collector) -> None:
    shown = f"The data file '{printable(name)}'"
    if not _is_inside(name):
        collector.damage.append(f"{shown} lies outside of the folder, where gnomon does not look: {users}.")
        return
    if not (folder / name).is_file():
        collector.damage.append(f"{shown} is missing; its tensors cannot be loaded: {users}.")
        return
    entry = file_entry(folder / name, name, "data")
    if entry.bytes < needed:
        collector.damage.append(f"{shown} is cut off: it should have at least {needed} bytes and has {entry.bytes}.")
    collector.files.append(entry)


def _walk_object(folder: Path, path: tuple[str, ...], where: Place | None, machine: PickleMachine) -> Walker:
    """List an object that `torch.save` put into a data file; when that cannot be read, the object's name alone."""
    data = folder / where.file if where is not None and _is_inside(where.file) else None
    if where is None or data is None or not data.is_file():
        walker = Walker(METADATA_FILE)
        walker.add_value(path, "object")
        return walker
    walker = Walker(f"{where.file}@{where.offset}")
    with open_regular(data) as file:
        try:
            root = read_zip(file, where.offset, where.length, machine).root
        except CheckpointError:
            walker.add_value(path, "object", f"<{where.length} bytes>")
            return walker
    walker.walk(root, path)
    return walker


def _is_inside(name: str) -> bool:
    """Return whether a name leads to a file in the folder or in one below."""
    parts = PurePath(name).parts
    return bool(parts) and ".." not in parts and not PurePath(name).is_absolute()


def _names(stored: Iterable[Stored]) -> str:
    return listed([".".join(item.path) for item in stored])
