"""The accelerator that a row's `hardware` names: its family, and what tells devices of one family apart.

Makers, form factors in names and names in brackets say nothing; memory size, PCIe, NVL and GCD do. A device that the
catalog lacks in the stated size or form is refused, not replaced by its relative.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from gnomon.errors import PlanError
from gnomon.plan.published.columns import text
from gnomon.spec.catalog import find_accelerator, list_accelerators, load_accelerator

Row = Mapping[str, Any]

# names of a family, after makers and forms are gone
ALIASES = (
    (
        r"((?:tpu-?)?(?:v[2-7](?:e|p|x|-?lite\w*)?|7x)|ironwood|trillium)-\d+(?:x\d+)*",
        r"\1",
    ),  # of a slice: v6e-256, tpu7x-4x4x4
    (r"(tpu-v\d+\w?)-(?:\d+|ironwood|trillium)", r"\1"),
    (r"(?:tpu-?)?v?7x?|ironwood|tpu-7x", "tpu-v7x"),
    (r"(?:tpu-?)?v6e|trillium", "tpu-v6e"),
    (r"(?:tpu-?)?v5-?(?:e|lite\w*)", "tpu-v5e"),
    (r"(?:tpu-?)?(v2|v3|v4|v5p)", r"tpu-\1"),
    (r"gaudi-(\d)", r"gaudi\1"),
    (r"(?:trn|trainium)-?(\d)", r"trainium\1"),
    (r"(?:rtx-?)?(3090|4090|5090|a6000)", r"rtx-\1"),
    (r"rtx-?pro-?6000", "rtx-pro-6000-blackwell"),
)
MAKERS = r"nvidia|amd|intel|google|aws|habana|cloud|instinct|tesla|geforce|quadro"
NOISE = rf"{MAKERS}|tensor|core|gpus?|accelerators?|oam|dgx|hgx|superchip|custom|nvl\d+|\d+w"
FORMS = {"pcie", "nvl", "gcd", "sxm"}
CARDS = {"a10", "a30", "a40", "l4", "l40", "l40s", "t4", "mi210"}  # made for PCIe alone
# taken when a row states no memory size; those with a size that only one machine has are never meant then
USUAL = ("a100-80gb", "a100-pcie-80gb", "v100-32gb", "gh200-96gb")
SPECIAL = ("a100-64gb-custom", "h100-96gb-hbm2e")
SAME_MEMORY = 0.1  # vendors and drivers state the memory of one device up to this share apart (B200: 192 and 180 GB)


class _Device(NamedTuple):
    """A device as its name describes it; memory in GB."""

    family: str
    memory: float | None
    forms: frozenset[str]
    hbm: str


def accelerator_of(row: Row, remarks: list[str]) -> str:
    """Return the catalog name of a row's hardware; raise PlanError when the catalog does not know it."""
    stated = text(row, "hardware")
    base = stated.split("(")[0].strip()
    raw = str(row.get("hardware") or "").split("(")[0].strip()
    exact = find_accelerator(raw) or find_accelerator(f"NVIDIA {raw}")
    if exact is not None:
        return exact.name
    device = _device(stated)
    plain = re.sub(r"[^a-z0-9]+", "-", base).strip("-")
    if plain in list_accelerators() and not (device.forms - _device(base).forms):
        return _chosen(row, device, [plain], remarks)
    fitting = [name for name in list_accelerators() if _fits(device, _catalog()[name])]
    return _chosen(row, device, fitting, remarks)


def _chosen(row: Row, device: _Device, fitting: list[str], remarks: list[str]) -> str:
    """Return the device of the nearest memory, with the fewest traits that the row does not state."""
    if not fitting:
        relatives = [name for name, entry in _catalog().items() if entry.family == device.family]
        others = f"; of this family it has {', '.join(relatives)}" if relatives else ""
        raise PlanError(f"hardware is {row.get('hardware')!r}, which the catalog does not know{others}")
    unstated = {name: len(_catalog()[name].forms - device.forms - {"sxm"}) for name in fitting}
    if device.memory is not None:
        wanted = device.memory
        return min(fitting, key=lambda name: (abs((_catalog()[name].memory or 0.0) - wanted), unstated[name]))
    fitting = [name for name in fitting if unstated[name] == min(unstated.values())]
    common = [name for name in fitting if name not in SPECIAL] or fitting
    chosen = next((name for name in USUAL if name in common), common[0])
    if len({_catalog()[name].memory for name in common}) > 1:
        remarks.append(f"hardware does not state the memory: {row.get('hardware')} taken as {chosen}")
    return chosen


def _fits(stated: _Device, entry: _Device) -> bool:
    if stated.family != entry.family or ("gcd" in stated.forms) != ("gcd" in entry.forms):
        return False
    card = bool(entry.forms & {"pcie", "nvl"})
    if "nvl" in stated.forms and "nvl" not in entry.forms:
        return False
    if "pcie" in stated.forms and not (card or entry.family in CARDS or entry.family.startswith("rtx")):
        return False
    if card and "sxm" in stated.forms:
        return False
    if stated.hbm and entry.hbm and stated.hbm != entry.hbm:
        return False
    if stated.memory is None or entry.memory is None:
        return True
    return abs(stated.memory / entry.memory - 1.0) <= SAME_MEMORY


def _device(name: str) -> _Device:
    """Return what a name says; brackets count only where they state memory or form."""
    name = re.sub(r"(\d+)\s*gi?b?\b", r"-\1gb-", name.lower())
    name = re.sub(r"\b(rtx)(?=\d)", r"\1-", name).replace("pci-e", "pcie")
    base, _, bracket = name.partition("(")
    base = re.sub(r"^\s*\d+\s*[x×]\s*", "", base)
    memory, forms, hbm, family = None, set[str](), "", list[str]()
    for index, token in enumerate(re.findall(r"[a-z0-9]+", f"{base} ( {bracket}")):
        named = index < len(re.findall(r"[a-z0-9]+", base))
        form = re.sub(r"(?<=sxm)\d$|(?<=gcd)s$", "", token)
        if re.fullmatch(r"\d+gb", token):
            memory = memory or float(token[:-2])
        elif form in FORMS:
            forms.add(form)
        elif token.startswith("hbm"):
            hbm = hbm or token
        elif named and not re.fullmatch(NOISE, token):
            family.append(token)
    joined = "-".join(family)
    for pattern, family_name in ALIASES:
        joined = re.sub(rf"^(?:{pattern})$", family_name, joined)
    return _Device(joined, memory, frozenset(forms), hbm)


@cache
def _catalog() -> dict[str, _Device]:
    found = {}
    for name in list_accelerators():
        size = load_accelerator(name).memory_bytes
        found[name] = _device(name)._replace(memory=None if size is None else size / 2.0**30)
    return found
