"""Where the user's own code lives: the current folder, without what is installed below it."""

from __future__ import annotations

import sys
import sysconfig
from functools import cache
from pathlib import Path


def is_project_path(place: str | None, project: Path) -> bool:
    """Whether a file or folder belongs to the project and is neither installed nor part of Python."""
    if place is None or not Path(place).exists():  # "built-in" and "frozen" are origins too
        return False
    path = Path(place).resolve()
    if not path.is_relative_to(project.resolve()) or {"site-packages", "dist-packages"} & set(path.parts):
        return False
    return not any(path.is_relative_to(root) for root in _python_folders())


def make_importable(project: Path) -> None:
    """Append the project to the import path, behind everything installed, so that it cannot replace a package."""
    if str(project) not in sys.path:
        sys.path.append(str(project))


@cache
def _python_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple(Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts"))
