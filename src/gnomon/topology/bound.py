"""A lower bound for the links between switches that rings of equal size must cross."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gnomon.topology.graph import NetworkNode


def crossings_bound(nodes: Sequence[NetworkNode], num_rings: int, ring_size: int) -> int:
    """Return a number of links between switches that any `num_rings` disjoint rings of `nodes` cross in total.

    Links are counted once for each ring on both sides of them. For each level of the tree, the links above its switches
    are bounded by themselves, with everything below a switch taken as one bin:

    - a bin of c nodes holds at most c // ring_size whole rings, so Q = num_rings - sum(c // ring_size) rings (or none)
      reach into several bins, and each of them into as many as the largest bins need to hold it;
    - an optimal set of rings fills each bin with whole rings first. Suppose a bin could hold one more. Take a ring that
      reaches into it and t - 1 others, and give it unused nodes of the bin, or those of further rings in it, in
      exchange for its own outside. Passing its t - 1 outside parts to q further rings adds at most t - 1 + q - 1
      reaches, the bin loses q - 1 of them and the ring its t: less in total. So the Q rings live on the remainders
      c % ring_size, and reach into at least as many bins as the largest remainders need to hold all of them.

    Nodes on switches above the level belong to no bin; with such nodes only the first bound is used.
    """
    depth = max(len(node.path) for node in nodes)
    return sum(_level_bound(nodes, level, num_rings, ring_size) for level in range(depth))


def _level_bound(nodes: Sequence[NetworkNode], level: int, num_rings: int, ring_size: int) -> int:
    bins = sorted(Counter(node.path[level] for node in nodes if len(node.path) > level).values(), reverse=True)
    above = len(nodes) - sum(bins)
    spread = num_rings - sum(size // ring_size for size in bins) - above // ring_size
    if spread <= 0:
        return 0
    each = max(_bins_needed(bins, ring_size - above), 1 if above else 2)
    if above:
        return spread * each
    remainders = sorted((size % ring_size for size in bins), reverse=True)
    return max(spread * each, _bins_needed(remainders, spread * ring_size))


def _bins_needed(descending: Sequence[int], amount: int) -> int:
    count = 0
    for size in descending:
        if amount <= 0:
            break
        amount, count = amount - size, count + 1
    return count
