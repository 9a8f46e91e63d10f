"""What a row says of its network: the rate that the accelerators of a node share, and the links inside the node.

GB is a gigabyte and Gb a gigabit, so a note is read as it is written. A rate belongs to the network word before it,
else to the one behind it (`900 GB/s NVLink, 8x400G IB`); rates of links inside a node are kept apart. `N x RATE` is
the sum of N adapters, `per GPU` is times the accelerators of a node, and everything else is the rate of a node.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from gnomon.errors import PlanError
from gnomon.plan.published.columns import NUMBERS, with_digits

PREFIXES = {"m": 1e6, "g": 1e9, "t": 1e12}
ETHERNET = {10, 25, 40, 50, 56, 100, 200, 400, 800, 1600}  # Gb/s of an adapter, written without "b/s"
LARGEST_ADAPTER = 1.6e12  # bits per second
CLEARLY_A_RATE = 100  # "100G" is a network, "40G" may be memory unless a network word stands beside it

_ADAPTERS = r"nics?|hcas?|adapters?|ports?|rails?|cards?"
_NETWORK = (
    r"\bib\b|infiniband|ethernet|roce|\befa\b|\b[efhnqx]dr\d*\b|connectx|\bcx-?\d|slingshot|omni-?path|\bopa\b|\bdcn\b"
    rf"|tcpx|rdma|inter-?node|node-(?:to-)?node|(?:between|across) (?:the )?nodes|\b(?:{_ADAPTERS})\b"
)
_LINK = r"nv-?link\w*|nvswitch|xgmi|infinity fabric|neuronlink"
_INSIDE = rf"{_LINK}|\bici\b|(?:in|within|inside) (?:the |a |each )?(?:node|slice)|intra-?node"
_PCIE = r"\bpci(?:e|-e|[- ]express)\b"
_OTHER_NETWORK = r"storage|front-?end|management|\bmgmt\b"
_ACCELERATOR = r"(?:gpu|accelerator|accel|chip|device|gcd|tpu)s?\b"
_EACH = r"(?:\bper|\beach|\bevery|/)[\s-]*"
_HOST = r"(?:node|host|server|machine|instance)"
_WORD = rf"(?:[efhnqx]dr|ib|infiniband|connectx-?\d*|cx-?\d|ethernet|roce|efa|nvidia|mellanox|{_ADAPTERS})"
_RATE = re.compile(
    rf"(?<![\w.])(?<!\d,)(?:(?P<count>\d+)\s*[x×*]\s*(?P<named>(?:{_WORD}[\s(-]+)*))?"
    r"(?P<value>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)\s*(?P<prefix>[mgt])"
    r"(?:(?P<size>bytes?|bits?|b)(?P<second>\s*/\s*s(?:ec(?:ond)?)?\b|ps\b|\s+per\s+second\b)|(?P<ethernet>b?e|ige)\b"
    rf"|(?P<bare>b|bits?)?\b)(?:(?:\s+{_WORD})*\s*[x×*]\s*(?P<times>\d+)\b(?!\s*[x×*gt]))?",
    re.IGNORECASE,
)


class Interconnect(NamedTuple):
    """What a note states, None where it is silent.

    `node_bytes_per_s` is the network's rate per node and direction; `link_bytes_per_s` that of the links of one
    accelerator inside the node, per direction; `domain` the accelerators that such links join.
    """

    node_bytes_per_s: float | None
    link_bytes_per_s: float | None
    domain: int | None
    remarks: tuple[str, ...]


class _Stated(NamedTuple):
    """One rate of the network. `scope` is what it was stated for."""

    bits_per_s: float
    scope: str


def read_interconnect(note: str, per_node: int) -> Interconnect:
    """Return what `note` states of nodes with `per_node` accelerators; raise PlanError for rates that disagree."""
    note = _abbreviated(note)
    stated, links = list[_Stated](), list[float]()
    unclear = bool(re.search(r"\d,\d{1,2}\s*[mgt]i?b", note.lower()))  # a decimal comma
    directions = 1.0 if re.search(r"uni-?directional|(?:per|each) direction", note.lower()) else 2.0
    for part in re.split(r"[;+|\n]|(?<!\d),|,(?!\d)|\band\b", note):
        for match, place, around in _rates(part):
            bits = _bits_per_s(match, part)
            if not bits or not math.isfinite(bits):
                unclear |= place == "network" and _is_meant_as_rate(match, part)
            elif place == "link":
                links += [bits / 8.0 / directions] if _is_bytes(match) and not match["count"] else []
            elif place == "network":
                stated.append(_scoped(match, around, bits, per_node, note))
    total, remarks = _total(stated)
    if unclear:
        remarks.append(
            "interconnect_note states a rate that is not clear (write Gb/s or GB/s, and a decimal point): not read"
        )
    found = re.search(
        r"\bnvl-?(\d+)|nvlink domain(?: size)?\s*(?:of|:|=)?\s*(\d+)|(\d+)[- ](?:gpu[- ])?nvlink domain", note.lower()
    )
    domain = next(int(size) for size in found.groups() if size) if found else None
    return Interconnect(total, links[0] if len(links) == 1 else None, domain, tuple(remarks))


def _abbreviated(note: str) -> str:
    """Return a note with its numbers in digits, its units in letters, and the rate behind a name (HDR100) apart."""
    spelled = re.sub(rf"\b({'|'.join(NUMBERS)}) (?=\d)", r"\1 x ", note, flags=re.IGNORECASE)  # eight 400 Gb/s NICs
    named = re.sub(
        r"\b([efhnqx]dr)-?(\d{2,3})(?![\d.])(\s*[gt]b?(?:it|ps|/s|\b))?",
        lambda name: f"{name[1]} {name[2]}{name[3] or ' Gb/s'}",
        with_digits(spelled),
        flags=re.IGNORECASE,
    )
    return re.sub(
        r"(?<=\d)[\s-]*(mega|giga|tera)-?(bit|byte)s?\b",
        lambda unit: f" {unit[1][0].upper()}{'b' if unit[2].lower() == 'bit' else 'B'}",
        named,
        flags=re.IGNORECASE,
    )


def _rates(part: str) -> Iterator[tuple[re.Match[str], str, str]]:
    """Yield (rate, what it is a rate of, the words that may qualify it) of one part of a note."""
    words = part.lower()
    if re.search(_OTHER_NETWORK, words):
        return
    rates = list(_RATE.finditer(part))
    inside = _INSIDE if re.search(_NETWORK, words) else f"{_INSIDE}|{_PCIE}"
    places = [(m.start(), "link" if re.fullmatch(_LINK, m[0]) else "inside") for m in re.finditer(inside, words)]
    places += [(m.start(), "network") for m in re.finditer(_NETWORK, words)]
    places.sort()
    begin = 0
    for index, rate in enumerate(rates):
        end = rates[index + 1].start() if index + 1 < len(rates) else len(part)
        before = [at for at in places if begin <= at[0] < rate.end()]
        behind = [at for at in places if rate.end() <= at[0] < end]
        nearest = before[-1] if before else behind[0] if behind else (0, "network")
        # a word behind a rate that took it says nothing of the next one
        begin = rate.end() if before or not behind else nearest[0] + 1
        head = words[: rate.start()] if index == 0 else words[rates[index - 1].end() : rate.start()].rpartition("(")[2]
        yield rate, nearest[1], f"{head if index == 0 or '(' in part else ''} # {words[rate.end() : end].split('(')[0]}"


def _is_bytes(rate: re.Match[str]) -> bool:
    size = rate["size"] or ""
    return size.lower().startswith("byte") or size == "B"


def _is_meant_as_rate(rate: re.Match[str], part: str) -> bool:
    """Return whether text with an unclear unit is a rate, and no memory size."""
    return rate["size"] is not None or (rate["bare"] == "B" and re.search(_NETWORK, part.lower()) is not None)


def _bits_per_s(rate: re.Match[str], part: str) -> float | None:
    """Return the rate without its multiples; None for text that is none, or of which the unit cannot be told."""
    if rate["bare"] == "B" or (rate["size"] == "B" and (rate["second"] or "").strip() == "PS"):
        return None
    value = float(rate["value"].replace(",", ""))
    if rate["size"] is None and rate["ethernet"] is None:
        known = rate["prefix"].lower() == "t" or value in ETHERNET
        clear = rate["count"] or (rate["prefix"].lower() == "g" and value >= CLEARLY_A_RATE)
        if not known or not (clear or re.search(_NETWORK, part.lower())):
            return None
    return value * PREFIXES[rate["prefix"].lower()] * (8.0 if _is_bytes(rate) else 1.0)


def _scoped(rate: re.Match[str], around: str, bits: float, per_node: int, note: str) -> _Stated:
    """Return the rate of a node."""
    head, _, tail = around.partition(" # ")
    several = re.search(
        r"(\d+)\s*(?:[\w-]+\s+){0,2}(?:nics|hcas|adapters|ports|rails|cards)\W*(?:of|at|with)?\s*$", head
    )
    whole = bits > LARGEST_ADAPTER or re.search(rf"^\W*(?:(?:in )?(?:total|aggregate|combined)|{_EACH}{_HOST})", tail)
    together = "(" in (rate["named"] or "") and whole
    count = "1" if together else rate["count"] or rate["times"] or (several and several[1])
    one_each = rf"\b(?:1|one)\s+(?:{_ADAPTERS})\s+per\s+{_ACCELERATOR}"
    if count:
        around = re.sub(one_each, "", around)
    factor = float(count or 1)
    if re.search(_EACH + _ACCELERATOR, around):
        return _Stated(bits * factor * per_node, "node")
    if not count and re.search(rf"{_EACH}(?:{_ADAPTERS}|links?)\b|\beach\b", tail):
        counts = set(re.findall(rf"(\d+)\s*(?:[x×]\s*)?(?:[\w-]+\s+){{0,2}}(?:{_ADAPTERS})\b", note.lower()))
        return _Stated(bits * float(counts.pop()), "node") if len(counts) == 1 else _Stated(bits, "adapter")
    per_host = rf"{_EACH}{_HOST}|node-(?:to-)?node|inter-?node|between nodes|total|aggregate"
    return _Stated(bits * factor, "node" if count or re.search(per_host, around) else "")


def _total(stated: list[_Stated]) -> tuple[float | None, list[str]]:
    """Return the bytes per second of a node and remarks; what says of what it is the rate goes before what does not."""
    rates = {scope: sorted({s.bits_per_s for s in stated if s.scope == scope}) for scope in ("node", "", "adapter")}
    scope = next((name for name in ("node", "") if rates[name]), None)
    if scope is None:
        how_many = "interconnect_note states the rate of an adapter and not how many a node has: not read"
        return None, [how_many] * bool(rates["adapter"])
    found = rates[scope]
    if not math.isfinite(found[-1]):
        raise PlanError("interconnect_note states a rate that is too large to compute with")
    if found[-1] > 1.001 * found[0]:
        listed = " and ".join(f"{bits / 1e9:g}" for bits in found)
        raise PlanError(f"interconnect_note states network rates that disagree: {listed} Gb/s per node")
    silent = f"interconnect_note does not say of what {found[0] / 1e9:g} Gb/s is the rate: taken per node"
    return found[0] / 8.0, [silent] * (scope == "")
