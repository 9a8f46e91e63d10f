"""How a row shards the states of training: the spellings of FSDP, HSDP, ZeRO and DDP.

FSDP1 and FSDP2 are versions, and `FSDP=1` is a switch that is on; `FSDP 8`, `FSDP=8` and `8-way` are groups of eight.
torchtitan's `dp_shard=8, dp_replicate=16` shards over eight ranks times those of context parallelism; MaxText's
`dcn_fsdp=2, ici_fsdp=256` over 512. No group is of one rank: -1 means all. HSDP and HYBRID_SHARD shard in a node.
"""

from __future__ import annotations

import math
import re
from typing import Literal, NamedTuple

_FSDP = (
    r"fsdp|hsdp|\bno_shard\b|fully[ _-]shard|full_shard|hybrid[_ -]?shard|shard_grad_op|dp[_-]shard"
    r"|data_parallel_shard"
)
_STAGE = r"(?:zero|stage|(?<![a-z])z)[\s_:=-]*(?:stage)?[\s_:=-]*([0-3])(?!\d)"
_WHOLE = (
    r"no[_ -]?shard|(?:not|un)[ -]?sharded|(?:\bno|without|w/o) (?:\w+ )?shard|^(?:none|no|off|false)\b|replicated"
    r"|\bddp\b"
)
_OPTIMIZER = r"dist(?:ributed)?[ _-]?opt|shard(?:ed|s|ing)?[ _-](?:the )?optim|optimizer (?:states? )?shard"
_WHOLE_OPTIMIZER = (
    rf"(?:\bno|\bnot|\bnon|without|w/o|not using)[ -](?:a )?(?:{_OPTIMIZER})"
    rf"|(?:{_OPTIMIZER})\w*"
    r"(?:\s*[=:]\s*(?:off|false|no|none|0)|\s+(?:is )?(?:off|false|none|disabled|unused|not used))\b"
)
_IN_NODE = r"hsdp|hybrid[_ -]?shard|(?:in|within|inside) (?:a |the |one |each )?node|intra-?node"
_UNNAMED = r"^shard(?:ed|ing)?$|(?:data|params?|parameters?|weights?|states?)[ -]shard|shard\w* (?:over|across|\d)"
_DEGREE = r"(?:dp[_-]shard|data_parallel_shard)(?:_degree)?\s*[=: ]\s*(-?\d+)"
_AXIS = r"(?:ici|dcn)_fsdp(?:_transpose)?(?:_parallelism)?\s*[=: ]?\s*(-?\d+)"
_OF_RANKS = r"(\d+)\b(?!\s*(?:[x×*]|nodes?|pods?|slices?|replicas?|copies)\b)"
_GROUPS = (
    r"(?<![\w.-])(\d+)\s*(?:shards|shard ranks)\b",
    rf"(?:fsdp|hsdp)(?:[ _](?:size|degree|group|over|across))*[\s=:(_-]*{_OF_RANKS}",
    r"(?<!\d)(\d+)[ -]way",
    rf"shard(?:ed|ing|s)?(?: (?:group|degree|size|over|across|of))*\s*[=: ]\s*{_OF_RANKS}",
)


class Sharding(NamedTuple):
    """`stage` as in ZeRO, None where the text is silent; `group` is the ranks of one copy, None for all.

    With `in_node` a group is a node; with `of_data` the group leaves out the ranks of context parallelism. `known` is
    False for a text that says nothing that is understood.
    """

    family: Literal["", "fsdp", "zero"] = ""
    stage: int | None = None
    group: int | None = None
    in_node: bool = False
    of_data: bool = False
    known: bool = True


def read_sharding(text: str) -> Sharding:
    """Return what a text in lower case says of sharding."""
    if not text:
        return Sharding()
    if re.search(r"fsdp\s*[=: ]\s*0\b", text):
        return Sharding(stage=1)  # Megatron-FSDP is off; the optimizer is distributed all the same
    if re.search(r"(?:no|not|without) fsdp|fsdp\s*[=:]?\s*(?:off|false|none|disabled)\b", text):
        return Sharding(stage=0) if "ddp" in text else Sharding()
    words = re.sub(r"fsdp(?:-?[12]|[ -]?v[12])(?!\d)", "fsdp", text)
    fsdp = bool(re.search(_FSDP, words))
    named = re.search(_STAGE, words) or re.fullmatch(r"([0-3])", words)
    stage = int(named.group(1)) if named else _stage_in_words(words, fsdp)
    if stage is None:
        return Sharding(known=False)
    degree = re.search(_DEGREE, words)
    if degree is not None and int(degree.group(1)) == 1 and not named:
        return Sharding(stage=0)  # copies alone
    unnamed = stage == 3 and not named and re.search(_UNNAMED, words) is not None
    family: Literal["", "fsdp", "zero"] = "fsdp" if fsdp or unnamed else "zero" if named else ""
    group = _group(words, degree)
    return Sharding(family, stage, group, bool(re.search(_IN_NODE, words)) and group is None, degree is not None)


def _stage_in_words(words: str, fsdp: bool) -> int | None:
    if "shard_grad_op" in words:
        return 2
    if re.search(_WHOLE_OPTIMIZER, words) and not fsdp:
        return 0
    if re.search(_OPTIMIZER, words):
        return 1
    if re.search(_WHOLE, words) and (not fsdp or re.search(r"no[_ -]?shard", words)):
        return 0
    return 3 if fsdp or "shard" in words or "gemini" in words else None


def _group(words: str, degree: re.Match[str] | None) -> int | None:
    if degree is not None:
        return int(degree.group(1)) if int(degree.group(1)) > 0 else None
    axes = [int(number) for number in re.findall(_AXIS, words)]
    found = next((match for match in (re.search(pattern, words) for pattern in _GROUPS) if match), None)
    ranks = math.prod(axes) if axes and min(axes) > 0 else int(found.group(1)) if found else 1
    return ranks if ranks > 1 else None
