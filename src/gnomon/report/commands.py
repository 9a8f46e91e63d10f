"""The commands that the report names: how a run was started, and what makes a part that it lacks."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plan_command(run: str, is_pipeline: bool) -> str:
    """Return what writes estimate.json into a run."""
    if is_pipeline:
        return f"gnomon exec-pipeline --config {_config(run)} --steps plan"
    return f"gnomon plan CONFIG --output {shlex.quote(run)}"


def train_command(run: str, is_pipeline: bool) -> str:
    """Return what trains a run; a whole new run where its configuration is not a pipeline."""
    return f"gnomon exec-pipeline --config {_config(run)} --steps train" if is_pipeline else "gnomon exec-pipeline"


def measure_command(run: str, again: bool = False) -> str:
    """Return what writes measurement.json into a run, or replaces it."""
    return f"gnomon profile train {shlex.quote(run)}{' --force' if again else ''}"


def start_command(environment: Mapping[str, Any]) -> str:
    """Return the command line that env.json names, as a user types it."""
    command = environment.get("command")
    if not isinstance(command, str) or not command:
        return "gnomon exec-pipeline"
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    for index, word in enumerate(words[:2]):
        if Path(word).name == "gnomon":
            return shlex.join(["gnomon", *words[index + 1 :]])
    return command


def _config(run: str) -> str:
    return shlex.quote(f"{run}/config.yaml")
