"""What the verbs share: printing results, and writing files without overwriting any."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from gnomon.component.plain import jsonable


def print_json(value: Any) -> None:
    """Print nouns, paths, mappings and lists as indented JSON on stdout."""
    print(json.dumps(jsonable(value), indent=2))


def free_path(path: Path, force: bool) -> Path:
    """Return `path`, or with `force` unset the first of name-2, name-3, ... that does not exist yet."""
    if force or not path.exists():
        return path
    number = 2
    while (candidate := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return candidate


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what this process and its children print to stderr, so that stdout holds the JSON alone."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
