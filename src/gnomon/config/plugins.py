"""Plugins: installed distributions that add components, trackers, strategies or launchers through entry points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

from omegaconf import DictConfig
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from gnomon.config.values import select, to_plain
from gnomon.errors import ConfigError, did_you_mean

PREFIX = "gnomon."
OWN = "gnomon"


@dataclass(frozen=True)
class Plugin:
    """An installed distribution with entry points in groups `gnomon.*`."""

    distribution: str
    version: str
    entry_points: dict[str, dict[str, str]]
    """By group: the name of each entry point and the object that it leads to."""

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"distribution": self.distribution, "version": self.version, "entry_points": self.entry_points}


def list_plugins() -> list[Plugin]:
    """Return the installed plugins by name, without importing any; gnomon's own parts are not among them."""
    found: dict[str, Plugin] = {}
    for point in _plugin_points():
        assert point.dist is not None
        plugin = found.setdefault(point.dist.name, Plugin(point.dist.name, point.dist.version, {}))
        plugin.entry_points.setdefault(point.group, {})[point.name] = point.value
    return [found[name] for name in sorted(found)]


def wanted_plugins(config: DictConfig) -> list[str]:
    """Return the `plugins` of a configuration, none without that key; raise ConfigError if it is no list of names."""
    node = select(config, "plugins")
    if node is None:
        return []
    plugins = node if isinstance(node, str) else to_plain(node)
    if not isinstance(plugins, list) or not all(isinstance(plugin, str) for plugin in plugins):
        raise ConfigError(f"plugins is {plugins!r}; give a list of names, such as [gnomon-plugin-example>=0.1].")
    for plugin in plugins:
        _parse(plugin)
    return plugins


def missing_plugins(wanted: Iterable[str]) -> list[str]:
    """Return the plugins that are not installed, or in another version than asked for.

    Raises ConfigError for a distribution that is installed but is no plugin: naming it would make it trusted.
    """
    return [text for text in wanted if _problem(text) is not None]


def check_plugins(wanted: Iterable[str]) -> None:
    """Raise ConfigError, with the command that installs them, unless all plugins are installed."""
    problems = {text: problem for text in wanted if (problem := _problem(text)) is not None}
    if problems:
        quoted = " ".join(f"'{text}'" for text in problems)
        raise ConfigError(
            f"The configuration needs plugins: {'; '.join(problems.values())}. "
            f"Install with: pip install {quoted}, or add --install-plugins."
        )


def _plugin_points() -> Iterator[EntryPoint]:
    for group in sorted(group for group in entry_points().groups if group.startswith(PREFIX)):
        for point in entry_points(group=group):
            if point.dist is not None and canonicalize_name(point.dist.name) != OWN:
                yield point


def _problem(text: str) -> str | None:
    """Return what is wrong with a plugin that is asked for, None if it is there."""
    requirement = _parse(text)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    name = canonicalize_name(requirement.name)
    points = list(_plugin_points())
    if any(point.name == text for point in points):
        return None
    try:
        found = version(name)
    except PackageNotFoundError:
        installed = {canonicalize_name(point.dist.name) for point in points if point.dist is not None}
        near = did_you_mean(name, installed)
        return f"'{text}' is not installed{' (' + near.rstrip('?.') + '?)' if near.startswith('Did') else ''}"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"'{text}' is asked for and version {found} is installed"
    if not any(point.dist is not None and canonicalize_name(point.dist.name) == name for point in points):
        raise ConfigError(
            f"plugins names '{text}', which is installed but is no plugin of gnomon: it has no entry point in a group "
            f"'{PREFIX}...'. Remove it from plugins; if the configuration uses it as a target, add --trust PACKAGE."
        )
    return None


def _parse(text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"plugins has '{text}', which does not name a package: {reason}. Write NAME, NAME>=1.0 or NAME @ URL."
        ) from None
