"""What a row computes again in the backward pass, and in which share of its layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gnomon.plan.published.columns import integer, statement, text
from gnomon.plan.published.recomputed_products import some_products
from gnomon.spec import ModelSpec, StackSpec
from gnomon.spec.layout import Recompute

Row = Mapping[str, Any]
NOTHING = (
    r"(?:none|no|not|off|disabled|unused|false|0|without|w/o|never)\b|n$"
    r"|(?:(?:full|selective|activation|gradient|recomput\w*|remat\w*|checkpoint\w*|is)[\s_:=-]+)+(?:disabled|off|false|unused)$"
)
SELECTIVE_SINCE = 2023  # Megatron-LM's default; it came in the course of 2022
# what only names the setting: "remat_policy: none", "activation_checkpoint.mode = full"
NAMES = (
    r"^(?:(?:activation[ _-]?|gradient[ _-]?)?(?:recomput|remat|checkpoint)[a-z_]*|mode\b|granularity\b|\bac\b"
    r"|[\s.:=-])+"
)
# "sac" is PyTorch's selective activation checkpointing; MaxText's minimal policies keep the outputs of all products
SELECTIVE = r"selective|\bsac\b|minimal"
FULL = r"full|true|yes|\bon\b|^1$|enabled|\ball\b|layer|block|uniform"
ORDINALS = {"other": 2, "second": 2, "third": 3, "fourth": 4}


def recompute_of(row: Row, stack: StackSpec, model: ModelSpec, remarks: list[str]) -> tuple[Recompute, float]:
    """Return (what is recomputed, share of the layers), from the column or the family's default when it is silent.

    Under FSDP "selective" means the share of the layers that the column states, or half of them; in torchtitan, and as
    "selective op", every second product. Where some products of every layer are, their part of them is the share.
    """
    stated = re.sub(r"\bnot full\b[\s;,:]*", "", statement(row, "recompute"))
    if not stated:
        return _usual(row, stack), 1.0
    words = re.sub(NAMES, "", stated)
    share = _share(
        f"{words} of layers" if re.fullmatch(r"(?:full|selective)?[\s:=-]*[\d.]+\s*%", words) else stated,
        model.num_layers,
    )
    if re.match(NOTHING, words) or share == 0:
        return "none", 1.0
    if share is not None and re.search(r"\d+ layers?", stated) and (integer(row, "pp") or 1) > 1:
        remarks.append(f"recompute {stated!r} is taken as {share:.0%} of all layers, not of a pipeline stage's")
    some = some_products(stated, model, remarks, stack.stops_early) if share is None else None
    if some is not None:
        return some
    if re.search(SELECTIVE, stated):
        named = "torchtitan" in text(row, "source") or re.search(r"selective[ (=:_-]*op\b", stated)
        if named and share is None:
            return "per_op", 1.0
        return ("full", share or 0.5) if named or stack.name.startswith("fsdp") else ("selective", share or 1.0)
    if words and not re.search(FULL, words) and share is None:
        remarks.append(f"recompute {stated!r} is no known word: taken as full")
    return "full", share or 1.0


def _usual(row: Row, stack: StackSpec) -> Recompute:
    """Return what a family computes again when the column is silent; Megatron-LM's README calls its selective mode the
    default since there is one (May 2022, arXiv 2205.05198)."""
    if stack.name == "megatron-core":
        return "none"
    late = stack.name == "megatron" and (integer(row, "year") or SELECTIVE_SINCE) >= SELECTIVE_SINCE
    return "selective" if late else "full"


def _share(stated: str, layers: int) -> float | None:
    """Return the share of the layers that a text states, None when it states none."""
    percent = re.search(r"(\d+(?:\.\d+)?)\s*%\s*(?:of )?(?:the |all )?(?:\w+ )?layers?", stated)
    if percent:
        return min(1.0, float(percent.group(1)) / 100.0)
    part = re.search(r"(\d+)\s*(?:/|of|out of)\s*(?:the |all )?(\d+)\s*(?:\w+ )?layers?", stated)
    if part and int(part.group(2)):
        return min(1.0, int(part.group(1)) / int(part.group(2)))
    option = re.search(r"selective[ (=:_-]*(\d+)\b", stated)  # torchtitan's option: every so many layers
    if option and int(option.group(1)):
        return 1.0 / int(option.group(1))
    every = re.search(r"every (?:(\d+)(?:st|nd|rd|th)?|(other|second|third|fourth))\s+(?:\w+ )?layers?", stated)
    if every:
        return 1.0 / max(1, int(every.group(1) or ORDINALS[every.group(2)]))
    if re.search(r"\bhalf (?:of )?(?:the )?layers", stated):
        return 0.5
    # Megatron's uniform method recomputes all layers, in blocks of so many
    number = re.search(r"(\d+)\s*(?:transformer )?layers?\b|num[_-]layers\s*[=: ]\s*(\d+)", stated)
    if number and "uniform" not in stated:
        return min(1.0, int(number.group(1) or number.group(2)) / layers)
    return None
