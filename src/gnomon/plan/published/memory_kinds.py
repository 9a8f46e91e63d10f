"""Which predicted memory a table's `mem_kind` asks for, and in which unit.

| words in `mem_kind` | predicted quantity |
|---|---|
| nvidia-smi, rocm-smi, node, device, max_memory, nothing but a unit | tensors, reserve, context and libraries |
| reserved, peak | tensors and the allocator's reserve |
| allocated, active | tensors |

`first/last` compares the larger of the first and the last pipeline stage instead of the largest of all. Units are GB
(1e9 bytes) unless the words say GiB or MiB.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

UNITS = {"gib": 2.0**30, "mib": 2.0**20, "tib": 2.0**40, "mb": 1e6, "gb": 1e9}
UNIT = rf"\b(?:{'|'.join(UNITS)})\b"
Quantity = Literal["allocated", "reserved", "device"]


class MemoryKind(NamedTuple):
    """What a memory figure counts."""

    quantity: Quantity
    unit_bytes: float
    ends: bool


def memory_kind(text: str) -> MemoryKind:
    """Return what the words of a `mem_kind` mean."""
    words = text.lower()
    # "converted from MiB", "GB (source in MiB)", "MiB -> GB": the figure is in the other unit
    stated = re.sub(rf"(?:from|source|was|originally)\s*(?:in\s*)?:?\s*{UNIT}", "", words)
    stated = re.sub(rf"{UNIT}\s*(?:->|→|(?:is |was )?converted to|to)\s*(?={UNIT})", "", stated)
    unit = next((size for name, size in UNITS.items() if re.search(rf"\b{name}\b", stated)), UNITS["gb"])
    kind = re.sub(rf"{UNIT}|approximate(?:ly)?|converted|[^a-z_]", " ", stated).strip()
    return MemoryKind(_quantity(kind), unit, bool(re.search(r"first\s*(?:/|and|or|&)\s*last", words)))


def _quantity(words: str) -> Quantity:
    if "reserved" in words:
        return "reserved"
    if re.search(r"alloc|active", words):
        return "allocated"
    if not words or re.search(r"smi|node|device|max_mem|process", words):
        return "device"
    return "reserved"
