"""`summarize`: a path in, a `Checkpoint` out."""

from __future__ import annotations

from pathlib import Path

from gnomon.ckpt.collect import Collector
from gnomon.ckpt.contents import Checkpoint
from gnomon.ckpt.folders import collect_folder, locate
from gnomon.ckpt.printing import listed
from gnomon.ckpt.shards import INDEX_SUFFIX, collect_index
from gnomon.ckpt.totals import amount, by_dtype, stored_bytes
from gnomon.errors import CheckpointError
from gnomon.units import format_bytes

_NOTABLE_BYTES = 2**20


def summarize(path: str | Path) -> Checkpoint:
    """Return what a checkpoint file or folder holds, without PyTorch and without executing anything in it.

    Reads tables of contents only, never the data of tensors. Raises CheckpointError for a path that is missing, not
    a checkpoint, cut off, damaged, or made to exhaust memory.
    """
    path = Path(path)
    collector = Collector()
    try:
        place = locate(path, collector.notes)
        kind = _collect(place, collector)
    except OSError as error:
        where = error.filename or path
        raise CheckpointError(f"'{where}' cannot be read: {error.strerror or error}. Check its permissions.") from None
    total, stored = amount(collector.tensors), stored_bytes(collector.tensors)
    if stored - total.bytes > max(_NOTABLE_BYTES, total.bytes // 100):
        collector.notes.append(
            f"{format_bytes(stored)} are stored for {format_bytes(total.bytes)} of tensors: some view only a part of "
            "a storage, and the whole of it is saved. Saving tensor.clone() stores the part alone."
        )
    if collector.uncalled:
        what = "it" if len(collector.uncalled) == 1 else "them"
        collector.notes.append(f"It names {listed(list(collector.uncalled))} without calling {what}.")
    return Checkpoint(
        path=str(place),
        format=kind,
        files=tuple(collector.files),
        total=total,
        by_dtype=by_dtype(collector.tensors),
        stored_bytes=stored,
        tensors=tuple(collector.tensors),
        values=tuple(collector.values),
        calls=collector.unknown_calls,
        warnings=tuple(collector.warnings),
        notes=tuple(collector.notes),
        damage=tuple(collector.damage),
    )


def _collect(path: Path, collector: Collector) -> str:
    """Read what lies at a path and return what it is."""
    if path.is_dir():
        return collect_folder(path, collector)
    if path.name.endswith(INDEX_SUFFIX) and path.exists():
        collect_index(path, collector)
        count = len(collector.files)
        return f"{count} shard{'s' * (count != 1)}"
    collector.add_file(path, path.name)
    return collector.files[0].format
