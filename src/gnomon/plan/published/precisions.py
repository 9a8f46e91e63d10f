"""Which precision a label means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gnomon.errors import PlanError
from gnomon.plan.published.columns import statement
from gnomon.spec import AcceleratorSpec

Row = Mapping[str, Any]
# in the order of preference where a label has several
LABELS = (
    (r"fp4", "nvfp4"),
    (r"mx", "mxfp8"),
    (r"fp8|float8|e4m3", "fp8"),
    (r"int8|w8a8|\baqt\b", "int8"),
    (r"bf16|bfloat16", "bf16"),
    (r"fp16|(?<!b)float16|\bhalf\b", "fp16"),
    (r"tf32", "tf32"),
    (r"fp32|float32", "fp32"),
)
# numbers of 8 bits and fewer of something else than products, and products that are said not to be in them
_SMALL = r"(?:\w*fp4|\w*fp8|float8|int8|aqt)"
ELSEWHERE = (
    rf"{_SMALL}[ -](?:optimi|adam|moment|grad|kv|compress|comm|all-?gather)(?:(?!\w*fp\d|float8|int8)[\w -])*"
    rf"|{_SMALL}\s*[=:]?\s*(?:is )?(?:off|false|disabled|none|0(?![.\d]))\b"
    rf"|(?:\bno|\bnot|\bnon|without|w/o)[ -]{_SMALL}"
)


def precision_of(row: Row, accelerator: AcceleratorSpec) -> Any:
    """Return the precision that a label of the table means.

    Silent or "mixed" is bf16, or fp16 on an accelerator without bf16 (V100).
    """
    label = re.sub(ELSEWHERE, "", statement(row, "precision"))
    for pattern, precision in LABELS:
        if re.search(pattern, label):
            return precision
    if label and not re.search(r"\bmixed\b|\bamp\b|\b16[- ]?bit\b", label):
        raise PlanError(f"column precision is {row['precision']!r}, which names no known precision")
    lacks_bf16 = accelerator.peak("bf16") is None and accelerator.peak("fp16") is not None
    return "fp16" if lacks_bf16 else "bf16"
