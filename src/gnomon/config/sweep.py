"""Expand sweep overrides (`seed=1,2`, `size=range(1,4)`) into one list of overrides per job."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from gnomon.config._explain import first_paragraph
from gnomon.errors import ConfigError


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Return the parsed overrides; raise ConfigError for one that is not `key=value`, `+key=value` or `~key`."""
    return [_parse(text) for text in overrides]


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Return the product of all sweeps as lists of plain overrides, the last sweep fastest.

    Without a sweep that is one job. Raises ConfigError for `interval(...)`, which has no finite set of values.
    """
    choices = []
    for parsed, text in zip(parse_overrides(overrides), overrides, strict=True):
        if not parsed.is_sweep_override():
            choices.append([text])
            continue
        if not parsed.is_discrete_sweep():
            raise ConfigError(f"'{text}' has no finite set of values to run. Give a list (a=1,2) or a range.")
        choices.append([f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator()])
    return [list(job) for job in itertools.product(*choices)]


def _parse(text: str) -> Override:
    try:
        parsed = OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = first_paragraph(error).removeprefix(f"Error parsing override '{text}' ")
        raise ConfigError(
            f"The override '{text}' cannot be read: {reason}. "
            "Write key=value, +key=value to add or ~key to remove; quote a value that has spaces or brackets."
        ) from None
    if not parsed.key_or_group:
        raise ConfigError(f"The override '{text}' has no key before the '='. Write key=value.")
    return parsed
