"""Find the checkpoint in a folder, by the files that the frameworks leave there."""

from __future__ import annotations

import re
from pathlib import Path

from gnomon.ckpt.collect import METADATA_FILE, Collector, UnknownFormatError, parse_index
from gnomon.ckpt.printing import printable
from gnomon.errors import CheckpointError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
INDEX_SUFFIX = ".index.json"
_STATE_FILE = "state.json"
_MAX_POINTER_BYTES = 1000
_STEP = re.compile(r"step-(\d+)")


def locate(path: Path, notes: list[str]) -> Path:
    """Follow a folder to its newest checkpoint and return that; `path` itself when it is one already.

    Run directories of gnomon have `checkpoints/step-N`, those of Megatron-LM `latest_checkpointed_iteration.txt`, those
    of DeepSpeed `latest`. `notes` tells what was chosen. Raises CheckpointError when the pointer leads nowhere.
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
        collector.add_distributed(folder)
        if (folder / _STATE_FILE).is_file():
            collector.add_json(folder / _STATE_FILE, _STATE_FILE)
        _collect_files(_checkpoint_files(folder), folder, collector, always_prefix=True)
        return "distributed checkpoint"
    indexes = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    files = _checkpoint_files(folder)
    sharded: set[Path] = set()
    for index in indexes:
        shards = {folder / shard for shard in parse_index(index).values()}
        sharded |= shards
        alone = len(indexes) == 1 and not set(files) - shards
        collect_index(index, collector, () if alone else (printable(index.name),))
    found = _collect_files([file for file in files if file not in sharded], folder, collector, bool(indexes))
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


def collect_index(path: Path, collector: Collector, prefix: tuple[str, ...] = ()) -> None:
    """Read the shards of an index as one checkpoint; raise CheckpointError when they do not hold what it names."""
    shards = parse_index(path)
    before = len(collector.tensors)
    for shard in sorted(set(shards.values())):
        collector.add_file(path.parent / shard, shard, prefix)
    found = {tensor.name for tensor in collector.tensors[before:]}
    absent = [name for name in map(printable, shards) if ".".join((*prefix, name)) not in found]
    if absent:
        raise CheckpointError(
            f"'{path}' names {len(absent)} tensor(s) that no shard holds, first of them '{absent[0]}'."
        )
    extra = len(found) - len(shards)
    if extra > 0:
        collector.notes.append(f"The shards hold {extra} tensor(s) that '{path.name}' does not name.")


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
    """Return the files with a suffix of checkpoints, in the folder and one level below."""
    below = [*folder.glob("*"), *folder.glob("*/*")]
    return sorted(path for path in below if path.suffix in SUFFIXES and path.is_file())


def _follow(pointer: Path, megatron: bool, notes: list[str]) -> Path:
    """Return the folder that a file names: an iteration (Megatron-LM), or a folder (DeepSpeed)."""
    with pointer.open("rb") as file:
        text = file.read(_MAX_POINTER_BYTES).decode("utf-8", "replace").strip()
    name = f"iter_{int(text):07d}" if megatron and re.fullmatch("[0-9]{1,12}", text) else text
    target = pointer.parent / name
    if not name or Path(name).name != name or not target.is_dir():
        raise CheckpointError(f"'{pointer}' names '{printable(name)}', which is no folder beside it.")
    notes.append(f"'{pointer.name}' names '{name}'.")
    return target
