"""Which pipeline schedule a name means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gnomon.plan.published.columns import statement

Row = Mapping[str, Any]
NAMED = ("gpipe", "zb-h2", "v-half", "v-min", "zb-v", "dualpipe")
PLAIN = r"none|no|1f1b.*|.*pipedream.*|.*non-?interleaved.*|not interleaved"


def schedule_of(row: Row, pp: int, vpp: int, remarks: list[str]) -> tuple[Any, int]:
    """Return (schedule, chunks per rank) from its name and the `vpp` that the row states.

    The 1 of "interleaved 1F1B" is no number of chunks; interleaving without a number is of two.
    """
    name = statement(row, "pp_schedule")
    joined = (
        re.sub(r"[-_ ]", "", name).replace("zerobubble", "zb").replace("zbvhalf", "vhalf").replace("zbvmin", "vmin")
    )
    if "dualpipev" in joined:
        remarks.append(
            "pp_schedule dualpipev is priced as zb-v, which folds the model likewise but hides no all-to-all"
        )
        return "zb-v", vpp
    plain = bool(re.search(r"non-?interleav|not interleav|no interleav", name))
    chunks = None if plain else _chunks(name)
    if chunks is not None:
        return "1f1b", max(vpp, chunks)
    if not plain and re.search(r"interleav|1f1b-?i\b", name):
        if "zb" in joined:
            remarks.append(f"pp_schedule {name!r} is priced as interleaved 1f1b, whose bubble is larger")
        if vpp <= 1 < pp:
            remarks.append("pp_schedule is interleaved and the number of chunks is not stated: taken as 2")
        return "1f1b", max(vpp, 2)
    for schedule in NAMED:
        if schedule.replace("-", "") in joined:
            return schedule, vpp
    if re.search(r"afab|fthenb|allforwardallbackward", joined):
        return "gpipe", vpp
    if joined.startswith("zb"):
        return ("zb-h2" if "2p" in name else "zb-h1"), vpp
    if name and pp > 1 and not re.fullmatch(PLAIN, name):
        remarks.append(f"pp_schedule {name!r} is no known schedule: priced as 1f1b")
    return "1f1b", vpp


def _chunks(name: str) -> int | None:
    words = name.replace("1f1b", " ")
    found = re.search(
        r"\bv(?:pp|p)?\s*[=:]?\s*(\d+)\b|interleav\w*[\s(:=,x-]*(\d+)\b(?!\s*(?:micro|stages))"
        r"|(\d+)\s*(?:(?:model|virtual) )?(?:chunks|virtual stages)",
        words,
    )
    return next(int(number) for number in found.groups() if number) if found else None
