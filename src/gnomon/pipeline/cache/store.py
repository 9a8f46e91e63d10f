"""The folder of a cache: `steps/KEY.json` for each finished step, `objects/SHA256.*` for the data in it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnomon.errors import GnomonError, PipelineError
from gnomon.pipeline.cache.codec import DamagedError, decode, encode
from gnomon.spec._noun import write_atomically

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Stored:
    """What a finished step returned, read back, and a digest of it."""

    value: Any
    digest: str


class OutputStore:
    """Keeps outputs of steps under keys. Equal data is kept once; files are complete or not there."""

    def __init__(self, folder: str | Path, allow_pickle: bool = False) -> None:
        self.folder = Path(folder)
        self.allow_pickle = allow_pickle

    def save(self, key: str, step: str, value: Any) -> str:
        """Keep an output under a key and return its digest.

        Raises NotStorableError if it has no safe form, PipelineError on a full disk.
        """
        try:
            output = encode(value, self._write_object, self.allow_pickle)
            document = {"schema_version": SCHEMA_VERSION, "step": step, "output": output}
            write_atomically(self._entry(key), json.dumps(document))
            return _digest(output)
        except OSError as error:
            raise PipelineError(
                f"The output of step '{step}' cannot be kept in cache_dir='{self.folder}': {error.strerror}. "
                "Set another cache_dir, or cache: false."
            ) from None

    def load(self, key: str) -> Stored | None:
        """Return the output under a key, None if there is none; raise DamagedError if it cannot be read back."""
        entry = self._entry(key)
        if not entry.is_file():
            return None
        try:
            document = json.loads(entry.read_text(encoding="utf-8"))
            if document["schema_version"] != SCHEMA_VERSION:
                return None
            output = document["output"]
            return Stored(decode(output, self._read_object, self.allow_pickle), _digest(output))
        except DamagedError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OSError, GnomonError) as error:
            raise DamagedError(f"'{entry}' cannot be read ({type(error).__name__})") from None

    def digest(self, key: str) -> str | None:
        """Return the digest of the output under a key, None if there is none that can be read."""
        try:
            return _digest(json.loads(self._entry(key).read_text(encoding="utf-8"))["output"])
        except (ValueError, KeyError, TypeError, OSError):
            return None

    def _entry(self, key: str) -> Path:
        return self.folder / "steps" / f"{key}.json"

    def _write_object(self, data: bytes, suffix: str) -> str:
        name = hashlib.sha256(data).hexdigest() + suffix
        path = self.folder / "objects" / name
        if not _is_whole(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
            try:
                temporary.write_bytes(data)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return name

    def _read_object(self, name: str) -> bytes:
        path = self.folder / "objects" / Path(name).name
        if not path.is_file():
            raise DamagedError(f"'{path}' is gone")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != path.name.partition(".")[0]:
            raise DamagedError(f"'{path}' is damaged")
        return data


def _is_whole(path: Path) -> bool:
    """Whether an object is there and its content is what its name says."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == path.name.partition(".")[0]


def _digest(output: Any) -> str:
    """Return the digest of an output as JSON values; the data in it stands there by its own digests."""
    return hashlib.sha256(json.dumps(output, sort_keys=True).encode()).hexdigest()
