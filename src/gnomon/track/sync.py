"""Send what trackers have missed, after a run or beside one that has ended: each thing once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnomon.errors import ConfigError, GnomonError, did_you_mean
from gnomon.runtime.run_directory import RunDirectory
from gnomon.track.base import ItemRejectedError, NotReadyError
from gnomon.track.context import DeliveryState
from gnomon.track.forward import lock, open_delivery
from gnomon.track.places import Places
from gnomon.track.registry import list_trackers, load_tracker, parse_trackers
from gnomon.track.settings import ALL_RANKS, TrackerSettings


@dataclass(frozen=True, kw_only=True)
class SyncResult:
    """What was sent to one tracker for one rank, and what it refused."""

    tracker: str
    rank: int
    rows: int
    items: int
    rejected: tuple[str, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "rejected": list(self.rejected)}


def sync_run(
    run: RunDirectory, names: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> list[SyncResult]:
    """Send what is missing to the trackers of the run, or to `names`; return what was sent, by tracker and rank.

    `options` are settings of a tracker that this run has not had so far. Raises GnomonError when a tracker cannot be
    reached, is sent to by another process at this moment, or when there is none.
    """
    places = Places(run.path)
    known = _trackers_of(places)
    wanted = list(names) or known
    if not wanted:
        raise ConfigError(
            f"The run '{run.path}' has no tracker to send to. Name one with --to: {', '.join(_senders())}."
        )
    for name in wanted:
        if name not in known:
            _add(places, name, options or {})
        elif options:
            raise ConfigError(f"The run is sent to {name} with settings of its own already; leave the options out.")
    results = []
    for name in wanted:
        ranks = [rank for rank in places.ranks() if places.state(name, rank).exists()]
        leader_first = sorted(ranks, key=lambda rank, name=name: (not _leads(places, name, rank), rank))  # type: ignore[misc]
        results += [_sync(places, name, rank) for rank in leader_first]
    return results


def unsent(run: RunDirectory) -> dict[str, int]:
    """Return the bytes of rows and items that were not sent yet, by tracker."""
    places = Places(run.path)
    found: dict[str, int] = {}
    for name in _trackers_of(places):
        for rank in places.ranks():
            if places.state(name, rank).exists():
                found[name] = found.get(name, 0) + open_delivery(places, name, rank).pending_bytes()
    return found


def _sync(places: Places, name: str, rank: int) -> SyncResult:
    descriptor = lock(places, name, rank, wait=False)
    if descriptor is None:
        raise GnomonError(
            f"Another process is sending rank {rank} of '{places.run_dir}' to {name}. Wait until the run has ended."
        )
    try:
        delivery = open_delivery(places, name, rank)
        if not delivery.is_complete():
            while delivery.send_batch():
                pass
            delivery.finish()
    except (GnomonError, ItemRejectedError):
        raise
    except NotReadyError:
        raise GnomonError(f"Rank {rank} waits for the rank that leads {name}, which has written nothing.") from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise GnomonError(
            f"{name} does not take rank {rank} of '{places.run_dir}': {reason}. Nothing is lost; run this again when "
            "it can be reached."
        ) from error
    finally:
        os.close(descriptor)
    return SyncResult(
        tracker=name,
        rank=rank,
        rows=delivery.sent_rows,
        items=delivery.sent_items,
        rejected=tuple(delivery.rejected),
    )


def _trackers_of(places: Places) -> list[str]:
    names = {path.stem for path in places.root.glob("rank-*/*.json")}
    return sorted(names & set(list_trackers()))


def _leads(places: Places, name: str, rank: int) -> bool:
    (settings,) = parse_trackers(DeliveryState.load(places, name, rank).settings)
    return settings.leader == rank


def _add(places: Places, name: str, options: Mapping[str, Any]) -> None:
    """Prepare the sending of all ranks of the run to a tracker that it did not have."""
    if name in list_trackers() and name not in _senders():
        raise ConfigError(
            f"Nothing is sent to {name}: it is written by the run itself. {did_you_mean(name, _senders())}"
        )
    ranks = places.ranks()
    given = {"ranks": ALL_RANKS, **options, "name": name}
    (settings,) = parse_trackers(given)
    assert isinstance(settings, TrackerSettings)
    for rank in ranks:
        if settings.wants_rank(rank):
            places.folder(rank).mkdir(parents=True, exist_ok=True)
            state = DeliveryState(settings=settings.to_mapping(), world_size=max(ranks) + 1)
            state.save(places, name, rank)


def _senders() -> list[str]:
    return [name for name in list_trackers() if not load_tracker(name).in_loop]
