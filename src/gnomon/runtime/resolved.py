"""The configuration that a run directory keeps: that of the whole pipeline where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_resolved: ContextVar[str | None] = ContextVar("resolved_config", default=None)


@contextmanager
def resolved_config(text: str) -> Iterator[None]:
    """Make `text` (YAML) the configuration that is saved by the steps that run inside."""
    token = _resolved.set(text)
    try:
        yield
    finally:
        _resolved.reset(token)


def config_yaml(own_settings: str) -> str:
    """Return the configuration of the pipeline that is running, or `own_settings` for a step that is used alone."""
    text = _resolved.get()
    return own_settings if text is None else text
