"""Install the plugins that a configuration names, after showing which."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Sequence

import typer

from gnomon.errors import ConfigError


def install_plugins(missing: Sequence[str], yes: bool) -> None:
    """Show what would be installed, ask unless `yes`, and install it with pip for the running interpreter.

    Raises ConfigError when nobody can be asked, the answer is no, or pip is missing or fails.
    """
    command = [sys.executable, "-m", "pip", "install", *missing]
    lines = [
        "The configuration names plugins that are not installed:",
        *(f"  {plugin}" for plugin in missing),
        f"They would be installed with: {shlex.join(command)}",
        "A plugin runs with your rights: install only what you trust.",
    ]
    print("\n".join(lines), file=sys.stderr)
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(f"{sys.executable} has no pip. Install the plugins with the tool that made it, then repeat.")
    if not yes and not _agreed():
        raise ConfigError("The plugins were not installed, so the pipeline cannot run.")
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise ConfigError(f"pip could not install {', '.join(missing)}; its message is above.")
    importlib.invalidate_caches()


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("Nobody can be asked here whether to install them. Add --yes to install without asking.")
    return typer.confirm("Install them?", default=False, err=True)
