"""`TopologySourceError`: a source that cannot be asked."""

from __future__ import annotations

from collections.abc import Iterable

from gnomon.topology.graph import TopologyError


class TopologySourceError(TopologyError):
    """A source that is not installed, not reachable, refuses, or does not know the network."""


def missing_client(package: str, purpose: str) -> TopologySourceError:
    """Return the error for a client library that is not installed."""
    return TopologySourceError(f"{purpose} needs the package '{package}'. Install it: pip install 'gnomon[cloud]'")


def some_of(names: Iterable[str]) -> str:
    """Return the first five names in alphabetical order, and how many more there are."""
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")
