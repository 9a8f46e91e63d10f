"""Rings from the leaves upwards: fast, good, and not always the best.

Each branch keeps the rings that its children could make, and makes more from the nodes that they leave over. A ring is
made of parts that fill it exactly, so that nothing is split, or of the fewest parts; both ways are tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gnomon.topology.branch import Branch

Ring = tuple[int, ...]
Paths = Sequence[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Disjoint rings, each ascending and all in ascending order, and the links between switches that they cross."""

    rings: tuple[Ring, ...]
    crossings: int


def make_packing(rings: Sequence[Ring], paths: Paths) -> Packing:
    """Return rings in order, with their crossings counted once for each ring on both sides of a link."""
    ordered = sorted(tuple(sorted(ring)) for ring in rings)
    return Packing(rings=tuple(ordered), crossings=sum(crossings(ring, paths) for ring in ordered))


def crossings(ring: Ring, paths: Paths) -> int:
    """Return the links between switches in the smallest subtree that joins the ring."""
    below = Counter(switch for node in ring for switch in paths[node])
    return sum(count < len(ring) for count in below.values())


def pack(branch: Branch, paths: Paths, num_rings: int, ring_size: int) -> Packing:
    """Return the best of several quick packings; of equal ones the one that spans the fewest nodes."""
    order = list(_largest_first(branch))[: num_rings * ring_size]
    slices = [tuple(order[start : start + ring_size]) for start in range(0, len(order), ring_size)]
    found = [make_packing(slices, paths)]
    for prefer_exact in (True, False):
        packer = _Packer(paths, num_rings, ring_size, prefer_exact)
        packer.visit(branch)
        found.extend(packer.found)
    return min(found, key=_rank)


def _rank(packing: Packing) -> tuple[int, int]:
    return packing.crossings, max(ring[-1] for ring in packing.rings) - packing.rings[0][0]


def _largest_first(branch: Branch) -> Iterator[int]:
    yield from branch.nodes
    for child in sorted(branch.children, key=lambda child: -child.capacity):
        yield from _largest_first(child)


class _Packer:
    """One pass from the leaves to the top; collects the cheapest rings of every branch that has enough of them."""

    def __init__(self, paths: Paths, num_rings: int, ring_size: int, prefer_exact: bool) -> None:
        self.paths, self.num_rings, self.ring_size = paths, num_rings, ring_size
        self.prefer_exact = prefer_exact
        self.found: list[Packing] = []

    def visit(self, branch: Branch) -> tuple[list[tuple[int, Ring]], Ring]:
        """Return the rings made in this branch with their crossings, and the nodes left over."""
        rings: list[tuple[int, Ring]] = []
        whole = len(branch.nodes) // self.ring_size * self.ring_size
        for start in range(0, whole, self.ring_size):
            rings.append((0, branch.nodes[start : start + self.ring_size]))
        parts = [branch.nodes[whole:]] if len(branch.nodes) > whole else []
        for child in branch.children:
            made, left = self.visit(child)
            rings.extend(made)
            parts.extend([left] if left else [])
        made_here, left_over = self._join(parts)
        rings.extend((crossings(ring, self.paths), ring) for ring in made_here)
        if len(rings) >= self.num_rings:
            best = sorted(rings, key=lambda item: (item[0], min(item[1])))[: self.num_rings]
            self.found.append(make_packing([ring for _, ring in best], self.paths))
        return rings, left_over

    def _join(self, parts: list[Ring]) -> tuple[list[Ring], Ring]:
        """Return rings made of parts smaller than a ring, and what is left of the parts."""
        bins: dict[int, list[Ring]] = {}
        for part in reversed(parts):  # the first part of a size is taken first
            bins.setdefault(len(part), []).append(part)
        total = sum(len(part) for part in parts)
        rings: list[Ring] = []
        while total >= self.ring_size:
            rings.append(self._next_ring(bins))
            total -= self.ring_size
        return rings, tuple(node for size in sorted(bins, reverse=True) for part in bins[size] for node in part)

    def _next_ring(self, bins: dict[int, list[Ring]]) -> Ring:
        counts = {size: len(parts) for size, parts in bins.items() if parts}
        exact = fewest_parts(counts, self.ring_size)
        largest = _largest_parts(counts, self.ring_size)
        chosen = exact if exact and (self.prefer_exact or len(exact) <= len(largest)) else largest
        ring = [node for size in chosen for node in bins[size].pop()]
        rest = tuple(ring[self.ring_size :])
        if rest:  # the last part was larger than what was missing
            bins.setdefault(len(rest), []).append(rest)
        return tuple(ring[: self.ring_size])


def _largest_parts(counts: dict[int, int], ring_size: int) -> list[int]:
    """Return the fewest sizes that hold a ring: the largest, and at the end the smallest that is large enough."""
    left, missing, chosen = dict(counts), ring_size, []
    while missing > 0:
        enough = [size for size, count in left.items() if count and size >= missing]
        size = min(enough) if enough else max(size for size, count in left.items() if count)
        chosen.append(size)
        left[size] -= 1
        missing -= size
    return chosen


def fewest_parts(counts: dict[int, int], total: int) -> list[int] | None:
    """Return the fewest sizes, each at most `counts[size]` times, with the given sum, or None when there are none."""
    sizes = sorted((size for size, count in counts.items() if count and size <= total), reverse=True)
    impossible = total + 1
    best = np.full(total + 1, impossible)
    best[0] = 0
    used = np.zeros((len(sizes), total + 1), dtype=int)
    for row, size in enumerate(sizes):
        before = best.copy()
        for number in range(1, min(counts[size], total // size) + 1):
            candidate = before[: total + 1 - number * size] + number
            target = best[number * size :]
            better = candidate < target
            target[better] = candidate[better]
            used[row, number * size :][better] = number
    if best[total] >= impossible:
        return None
    chosen: list[int] = []
    for row in range(len(sizes) - 1, -1, -1):
        number = int(used[row, total])
        chosen.extend([sizes[row]] * number)
        total -= number * sizes[row]
    return chosen
