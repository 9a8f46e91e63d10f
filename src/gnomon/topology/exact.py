"""The best rings on a tree, by dynamic programming over what each branch leaves open.

Seen from above, a branch is the number of rings that are complete in it and the sizes of its open parts: one part for
each ring that needs nodes from elsewhere, too. Every open part crosses the links above the branch once. Where branches
meet, an open part of one may become one part with an open part of another, up to the size of a ring. Rings differ in
nothing else, so the fewest crossings for each such state of each branch give the optimum at the top.

The number of states has no polynomial limit, as must be (unless P = NP): below one spine with a full leaf switch for
each of 3r numbers between k/4 and k/2 whose sum is r k, r rings of k nodes cross only 3r links if and only if the
numbers fall into r triples of sum k, which is the problem 3-PARTITION. Hence the limit on the work.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from gnomon.topology.branch import Branch
from gnomon.topology.packing import Ring

MAX_NODES_OF_SWITCH = 256
"""More nodes on one switch can be given to rings in too many ways to try them all."""

State = tuple[int, tuple[int, ...]]
"""Complete rings, and the sizes of open parts in descending order."""

Pairs = tuple[tuple[int, int], ...]
"""Sizes of a part of the branch so far and of a part of the next child that become one."""


class _Entry(NamedTuple):
    crossings: int
    before: State = (0, ())
    child: State = (0, ())
    pairs: Pairs = ()


_States = dict[State, _Entry]


class WorkLimitError(Exception):
    """The search takes more work than allowed; its only caller catches it."""


def find_rings(branch: Branch, num_rings: int, ring_size: int, below: int, max_work: int) -> list[Ring] | None:
    """Return disjoint rings with the fewest crossings, or None when there are none with fewer than `below`.

    Raises WorkLimitError once more than `max_work` states were made.
    """
    search = _Search(branch.capacity, num_rings, ring_size, below, max_work)
    goal: State = (num_rings, ())
    best = search.solve(branch)[-1].get(goal)
    if best is None or best.crossings >= below:
        return None
    rings: dict[int, list[int]] = defaultdict(list)
    search.place(branch, goal, [], rings)
    return [tuple(ring) for ring in rings.values()]


class _Search:
    def __init__(self, capacity: int, num_rings: int, ring_size: int, below: int, max_work: int) -> None:
        self.num_rings, self.ring_size, self.below = num_rings, ring_size, below
        self.spare = capacity - num_rings * ring_size
        self.work_left = max_work
        self.solved: dict[tuple[object, ...], list[_States]] = {}

    def solve(self, branch: Branch) -> list[_States]:
        """Return the states of a branch: of its own nodes, then after each child."""
        if branch.form not in self.solved:
            covered = len(branch.nodes)
            stages = [self._own(covered)]
            for child in branch.children:
                covered += child.capacity
                stages.append(self._join(stages[-1], self.solve(child)[-1], child.weight, covered))
            self.solved[branch.form] = stages
        return self.solved[branch.form]

    def _own(self, count: int) -> _States:
        if count > MAX_NODES_OF_SWITCH:
            raise WorkLimitError
        states: _States = {}
        for used in range(max(0, count - self.spare), count + 1):
            for parts in partitions(used, self.ring_size, self.num_rings):
                self._spend()
                open_parts = tuple(part for part in parts if part < self.ring_size)
                states[len(parts) - len(open_parts), open_parts] = _Entry(0)
        return states

    def _join(self, states: _States, child: _States, weight: int, covered: int) -> _States:
        joined: _States = {}
        counted = [(state, entry, Counter(state[1])) for state, entry in states.items()]
        for low, low_entry in child.items():
            for state, entry, parts in counted:
                self._spend()
                crossings = entry.crossings + low_entry.crossings + weight * len(low[1])
                used = self._used(state) + self._used(low)
                if crossings >= self.below or used < covered - self.spare:
                    continue
                for pairs in self._matchings(low[1], parts):
                    self._spend()
                    result = self._result(state, low, pairs)
                    fits = result[0] + len(result[1]) <= self.num_rings
                    if fits and (result not in joined or crossings < joined[result].crossings):
                        joined[result] = _Entry(crossings, state, low, pairs)
        return joined

    def _spend(self) -> None:
        self.work_left -= 1
        if self.work_left < 0:
            raise WorkLimitError

    def _used(self, state: State) -> int:
        return state[0] * self.ring_size + sum(state[1])

    def _matchings(self, low: tuple[int, ...], parts: Counter[int], least: int = 0) -> Iterator[Pairs]:
        """Yield the ways to pair some of `low` with parts; equal members of `low` take parts in ascending order.

        Size 0 stands for no part. `least` is what an equal member before took.
        """
        if not low:
            yield ()
            return
        size, rest = low[0], low[1:]
        for part in (0, *sorted(parts)):
            if part < least or (part and not parts[part]) or part + size > self.ring_size:
                continue
            parts[part] -= 1
            for pairs in self._matchings(rest, parts, part if rest and rest[0] == size else 0):
                yield ((part, size), *pairs) if part else pairs
            parts[part] += 1

    def _result(self, state: State, low: State, pairs: Pairs) -> State:
        complete, open_parts = state[0] + low[0], [*state[1], *low[1]]
        for part, size in pairs:
            open_parts.remove(part)
            open_parts.remove(size)
            if part + size == self.ring_size:
                complete += 1
            else:
                open_parts.append(part + size)
        return complete, tuple(sorted(open_parts, reverse=True))

    def place(self, branch: Branch, state: State, labels: list[int], rings: dict[int, list[int]]) -> None:
        """Give nodes of the branch to rings; `labels` are the rings of the state's open parts."""
        stages = self.solve(branch)
        for stage, child in zip(stages[:0:-1], branch.children[::-1], strict=True):
            entry = stage[state]
            free = _by_size(state[1], labels)
            taken, taken_low = defaultdict(list), defaultdict(list)
            for part, low in entry.pairs:
                label = free[part + low].pop() if part + low < self.ring_size else _new_ring(rings)
                taken[part].append(label)
                taken_low[low].append(label)
            labels = [(taken[size] or free[size]).pop() for size in entry.before[1]]
            child_labels = [(taken_low[size] or free[size]).pop() for size in entry.child[1]]
            self.place(child, entry.child, child_labels, rings)
            state = entry.before
        start = 0
        whole = [(self.ring_size, _new_ring(rings)) for _ in range(state[0])]
        for size, label in [*whole, *zip(state[1], labels, strict=True)]:
            rings[label].extend(branch.nodes[start : start + size])
            start += size


def partitions(total: int, largest: int, max_parts: int) -> Iterator[tuple[int, ...]]:
    """Yield the ways to write `total` as a sum of at most `max_parts` numbers up to `largest`, in descending order."""
    if total == 0:
        yield ()
    elif total <= largest * max_parts:
        for first in range(min(total, largest), (total - 1) // max_parts, -1):
            for rest in partitions(total - first, first, max_parts - 1):
                yield (first, *rest)


def _by_size(sizes: tuple[int, ...], labels: list[int]) -> dict[int, list[int]]:
    free: dict[int, list[int]] = defaultdict(list)
    for size, label in zip(sizes, labels, strict=True):
        free[size].append(label)
    return free


def _new_ring(rings: dict[int, list[int]]) -> int:
    label = len(rings)
    rings[label] = []
    return label
