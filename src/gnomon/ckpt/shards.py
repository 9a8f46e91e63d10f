"""Read the shards of an index, `*.index.json`, as one checkpoint and compare them with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gnomon.ckpt.collect import MAX_JSON_BYTES, Collector, open_regular
from gnomon.ckpt.contents import TensorEntry
from gnomon.ckpt.printing import listed, printable, shorten, told_apart
from gnomon.ckpt.totals import amount, stored_bytes
from gnomon.errors import CheckpointError

INDEX_SUFFIX = ".index.json"
_GET_THEM = "Copy or download what is missing."
_OF_A_SERIES = re.compile(r"(.*)[0-9]+(-of-[0-9]+\..+)")


class Found(NamedTuple):
    """A tensor, by its name and the shard that holds it."""

    name: str
    shard: str
    tensor: TensorEntry


@dataclass(frozen=True, slots=True)
class Index:
    """What an index says: the shard of each tensor, and the bytes of all tensors together, where it tells.

    `files` are the shards that are there, also those of the series (`model-00002-of-00002`) that it does not name;
    `missing` are those that it names and that are not there.
    """

    path: Path
    shards: dict[str, str]
    total_size: float | None
    files: list[str]
    missing: list[str]

    @property
    def places(self) -> set[tuple[str, str]]:
        """The names of tensors, as they are printed, with their shards."""
        by_file: dict[str, list[str]] = {}
        for name, file in self.shards.items():
            by_file.setdefault(file, []).append(printable(name))
        return {(name, file) for file, names in by_file.items() for name in told_apart(names)}


def parse_index(path: Path) -> Index:
    """Return what an index of shards says; raise CheckpointError when it leads elsewhere, or none of them is there."""
    with open_regular(path) as file:
        text = file.read(MAX_JSON_BYTES + 1)
    try:
        document: Any = json.loads(text)
        shards = {str(name): str(shard) for name, shard in document["weight_map"].items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"'{path}' is not an index of shards: it has no mapping 'weight_map'.") from None
    foreign = sorted({shard for shard in shards.values() if Path(shard).name != shard or shard == ".."})
    if foreign:
        raise CheckpointError(f"'{path}' names '{printable(foreign[0])}', which is not a file beside it.")
    named = set(shards.values())
    files = sorted({name for name in named if (path.parent / name).is_file()} | _others_of_series(path.parent, named))
    missing = sorted(named - set(files))
    if missing and not files:
        raise CheckpointError(f"None of the files that '{path}' names is there: {_listed(missing)}. {_GET_THEM}")
    metadata = document.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    return Index(path, shards, size if isinstance(size, int | float) else None, files, missing)


def _others_of_series(folder: Path, named: Iterable[str]) -> set[str]:
    """Return the files of a folder whose names differ from a named one only in their number of the same whole."""
    series = {match.groups() for match in map(_OF_A_SERIES.fullmatch, named) if match}
    candidates = folder.glob("*-of-*") if series else ()
    return {
        path.name
        for path in candidates
        if (match := _OF_A_SERIES.fullmatch(path.name)) and match.groups() in series and path.is_file()
    }


def _listed(files: Sequence[str]) -> str:
    return listed([f"'{printable(file)}'" for file in files])


def collect_index(path: Path, collector: Collector, prefix: tuple[str, ...] = ()) -> None:
    """Read the shards of an index as one checkpoint; what they lack of what it names is damage.

    Raises CheckpointError for a shard that cannot be read.
    """
    index = parse_index(path)
    before = len(collector.tensors)
    found: list[Found] = []
    for shard in index.files:
        start = len(collector.tensors)
        collector.add_file(path.parent / shard, shard, prefix)
        found += [Found(".".join(t.path[len(prefix) :]), shard, t) for t in collector.tensors[start:]]
    holders: dict[str, list[str]] = {}
    for name, shard, _ in found:
        holders.setdefault(name, []).append(shard)
    places = index.places
    _tell_absent(index, places, holders, collector)
    _tell_wrong_shards(index, places, holders, collector)
    chosen = {name: [s for s in shards if (name, s) in places] or shards[:1] for name, shards in holders.items()}
    _tell_twofold(found, chosen, collector)
    collector.tensors[before:] = [item.tensor for item in found if item.shard in chosen[item.name]]
    _tell_total(index, collector.tensors[before:], collector)


def _tell_absent(
    index: Index, places: set[tuple[str, str]], holders: Mapping[str, list[str]], collector: Collector
) -> None:
    """Say which shards are missing, and which tensors are in none."""
    absent = sorted((name, shard) for name, shard in places if name not in holders)
    lost = [shorten(name) for name, shard in absent if shard in index.missing]
    nowhere = [shorten(name) for name, shard in absent if shard not in index.missing]
    if index.missing:
        tensors = f"; these tensors cannot be loaded: {listed(lost)}" if lost else ""
        verb = "is" if len(index.missing) == 1 else "are"
        collector.damage.append(
            f"'{index.path.name}' names {len(set(index.shards.values()))} files, of which {len(index.missing)} {verb} "
            f"missing: {_listed(index.missing)}{tensors}. {_GET_THEM}"
        )
    if nowhere:
        collector.damage.append(
            f"'{index.path.name}' names {len(nowhere)} tensor(s) that no shard holds: {listed(nowhere)}."
        )


def _tell_wrong_shards(
    index: Index, places: set[tuple[str, str]], holders: Mapping[str, list[str]], collector: Collector
) -> None:
    """Say which tensors are in another shard than the index says, and which ones it does not name."""
    wrong = sorted((name, shard) for name, shard in places if shard not in holders.get(name, [shard]))
    if wrong:
        texts = [f"{shorten(name)} (in {holders[name][0]}, not in {shard})" for name, shard in wrong]
        collector.damage.append(f"'{index.path.name}' leads to the wrong shard for {listed(texts)}.")
    named = {name for name, _ in places}
    extra = [name for name in holders if name not in named]
    if extra:
        collector.notes.append(
            f"The shards hold {len(extra)} tensor(s) that '{index.path.name}' does not name: {listed(extra)}."
        )


def _tell_twofold(found: Iterable[Found], chosen: Mapping[str, list[str]], collector: Collector) -> None:
    """Say which tensors are in several shards, of which one counts; where they differ, that is damage."""
    kinds: dict[str, set[object]] = {}
    others: dict[str, str] = {}
    for name, shard, tensor in found:
        kinds.setdefault(name, set()).add((tensor.shape, tensor.dtype))
        if shard not in chosen[name]:
            others.setdefault(name, shard)
    for differ, messages in ((True, collector.damage), (False, collector.notes)):
        names = [name for name in others if (len(kinds[name]) > 1) is differ]
        texts = [f"{shorten(name)} (of {chosen[name][0]}, also in {others[name]})" for name in names]
        if texts:
            how = "and differ there" if differ else "which counts once"
            messages.append(f"Several shards hold the same tensor, {how}: {listed(texts)}.")


def _tell_total(index: Index, tensors: Sequence[TensorEntry], collector: Collector) -> None:
    """Say where the index gives another size than the tensors have, however shared storages are counted."""
    sizes = {sum(tensor.bytes for tensor in tensors), amount(tensors).bytes, stored_bytes(tensors)}
    if index.total_size is not None and index.total_size not in sizes and not index.missing:
        collector.notes.append(
            f"'{index.path.name}' gives a total_size of {index.total_size} bytes; its tensors have {min(sizes)}."
        )
