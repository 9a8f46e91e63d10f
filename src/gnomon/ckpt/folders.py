"""Find the checkpoint in a folder, by the files that the frameworks leave there."""

from __future__ import annotations

import re
from pathlib import Path

from gnomon.ckpt.collect import Collector, UnknownFormatError
from gnomon.ckpt.data_files import METADATA_FILE, collect_distributed
from gnomon.ckpt.printing import printable
from gnomon.ckpt.shards import INDEX_SUFFIX, collect_index, parse_index
from gnomon.errors import CheckpointError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_STATE_FILE = "state.json"
_MAX_POINTER_BYTES = 1000
_STEP = re.compile(r"step-(\d+)")


def locate(path: Path, notes: list[str]) -> Path:
    """Follow a folder to its newest checkpoint and return that; `path` itself when it is one already.

    Run directories of gnomon have `checkpoints/step-N`, those of Megatron-LM `latest_checkpointed_iteration.txt`, those
    of DeepSpeed `latest`, which may also name a file. `notes` tells what was chosen. Raises CheckpointError when the
    pointer leads nowhere.
    """
    if not path.is_dir() or (path / METADATA_FILE).is_file():
        return path
    folder = path / "checkpoints" if (path / "env.json").is_file() and (path / "checkpoints").is_dir() else path
    steps = {int(m[1]): item for item in folder.iterdir() if (m := _STEP.fullmatch(item.name)) and item.is_dir()}
    if steps:
        newest = steps[max(steps)]
        notes.append(f"'{newest.name}' is the newest of {len(steps)} checkpoint(s) in '{folder}'.")
        return newest
    for pointer, megatron in (("latest_checkpointed_iteration.txt", True), ("latest", False)):
        if (path / pointer).is_file():
            return _follow(path / pointer, megatron, notes)
    return path


def collect_folder(folder: Path, collector: Collector) -> str:
    """Read all checkpoint files of a folder and return what it is; raise CheckpointError when there is none."""
    if (folder / METADATA_FILE).is_file():
        collect_distributed(folder, collector)
        if (folder / _STATE_FILE).is_file():
            collector.add_json(folder / _STATE_FILE, _STATE_FILE)
        _collect_files(_checkpoint_files(folder), folder, collector, always_prefix=True)
        return "distributed checkpoint"
    indexes = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    files = _checkpoint_files(folder)
    sharded: set[Path] = set()
    for index in indexes:
        shards = {(folder / shard).resolve() for shard in parse_index(index).files}
        sharded |= shards
        alone = len(indexes) == 1 and all(file.resolve() in shards for file in files)
        collect_index(index, collector, () if alone else (printable(index.name),))
    others = [file for file in files if file.resolve() not in sharded]
    found = _collect_files(others, folder, collector, bool(indexes))
    if not indexes and not found:
        parts = sorted(folder.glob("*.distcp"))
        if parts:
            raise CheckpointError(
                f"'{folder}' is a distributed checkpoint whose {METADATA_FILE} is missing beside '{parts[0].name}': it "
                "was not saved to the end, or not copied whole (files whose names start with a dot are easily left)."
            )
        listed = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
        raise CheckpointError(
            f"'{folder}' holds no checkpoint: neither {METADATA_FILE} nor *{INDEX_SUFFIX} nor one of {listed}, "
            "here or one folder below."
        )
    count = len(collector.files)
    return collector.files[0].format if count == 1 else f"{count} files"


def _collect_files(files: list[Path], folder: Path, collector: Collector, always_prefix: bool) -> int:
    """Read files, each under its own name if there are several; return how many were checkpoints."""
    found = 0
    for file in files:
        name = file.relative_to(folder).as_posix()
        prefix = (printable(name),) if always_prefix or len(files) > 1 else ()
        try:
            collector.add_file(file, name, prefix)
            found += 1
        except UnknownFormatError as error:
            collector.notes.append(f"Left out: {error}")
    return found


def _checkpoint_files(folder: Path) -> list[Path]:
    """Return the files with a suffix of checkpoints, in the folder and one level below.

    A file that several links lead to is there once, by the path with the fewest links.
    """
    below = [*folder.glob("*"), *folder.glob("*/*")]
    found = sorted(path for path in below if path.suffix in SUFFIXES and path.is_file())
    by_file: dict[Path, Path] = {}
    for path in sorted(found, key=lambda path: _num_links(path, folder)):
        by_file.setdefault(path.resolve(), path)
    return sorted(by_file.values())


def _num_links(path: Path, folder: Path) -> int:
    """Return how many parts of a path are symbolic links, those of the folder itself not counted."""
    inside = path.relative_to(folder)
    return sum((folder / part).is_symlink() for part in (inside, *inside.parents[:-1]))


def _follow(pointer: Path, megatron: bool, notes: list[str]) -> Path:
    """Return what a file names: an iteration (Megatron-LM), a folder (DeepSpeed), or another file beside it."""
    with pointer.open("rb") as file:
        text = file.read(_MAX_POINTER_BYTES).decode("utf-8", "replace").strip()
    name = f"iter_{int(text):07d}" if megatron and re.fullmatch("[0-9]{1,12}", text) else text
    target = pointer.parent / name
    is_there = target.is_dir() or (target.is_file() and target != pointer)
    if not name or Path(name).name != name or not is_there:
        raise CheckpointError(f"'{pointer}' names '{printable(name)}', which is no folder beside it, nor another file.")
    notes.append(f"'{pointer.name}' names '{name}'.")
    return target
