"""`TopologySourceError`: a source that cannot be asked."""

from __future__ import annotations

from gnomon.topology.graph import TopologyError


class TopologySourceError(TopologyError):
    """A source that is not installed, not reachable, refuses, or does not know the network."""


def missing_client(package: str, purpose: str) -> TopologySourceError:
    """Return the error for a client library that is not installed."""
    return TopologySourceError(f"{purpose} needs the package '{package}'. Install it: pip install 'gnomon[cloud]'")
