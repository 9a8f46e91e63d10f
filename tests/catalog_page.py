"""The tables of docs/catalog.md from the catalog's files: `python tests/catalog_page.py` writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from gnomon.plan.parameters import count_parameters
from gnomon.spec import AcceleratorSpec, ClusterSpec, ModelSpec
from gnomon.spec.catalog import (
    list_accelerators,
    list_clusters,
    list_models,
    load_accelerator,
    load_cluster,
    load_model,
)

PAGE = Path(__file__).parents[1] / "docs" / "catalog.md"
DTYPES = ("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp4", "int8")
MARK = "<!-- tables: python tests/catalog_page.py -->"


def render_tables() -> str:
    """Return the three tables as Markdown."""
    accelerators = [_accelerator(load_accelerator(name)) for name in list_accelerators()]
    clusters = [_cluster(load_cluster(name)) for name in list_clusters()]
    models = [_model(load_model(name)) for name in list_models()]
    return "\n\n".join(
        [
            "## Accelerators",
            "Dense peaks in TFLOP/s (int8: TOP/s); memory in GiB, its bandwidth in GB/s; power in W.",
            _table(("name", *DTYPES, "memory", "bandwidth", "power", "units", "source"), accelerators),
            "## Clusters",
            "Tiers from the innermost outwards: accelerators that it connects, GB/s per accelerator and direction.",
            _table(("name", "node", "tiers", "source"), clusters),
            "## Models",
            "Parameters in billions, in brackets those that one token meets. Layers of an encoder come first.",
            _table(("name", "parameters", "layers", "width", "heads", "experts", "vocabulary", "source"), models),
        ]
    )


def render_page() -> str:
    """Return the page with its tables renewed and its text kept."""
    text, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    return f"{text}{MARK}\n\n{render_tables()}\n"


def _accelerator(spec: AcceleratorSpec) -> Iterable[str]:
    yield f"`{spec.name}`"
    for dtype in DTYPES:
        yield _number(spec.peak_flops.get(dtype), 1e12)
    yield _number(spec.memory_bytes, 2**30)
    yield _number(spec.memory_bandwidth_bytes_per_s, 1e9)
    yield _number(spec.tdp_w, 1)
    yield _number(spec.num_compute_units, 1)
    yield _link(spec.source)


def _cluster(spec: ClusterSpec) -> Iterable[str]:
    yield f"`{spec.name}`"
    yield f"{spec.accelerators_per_node} x `{spec.accelerator.name}`"
    yield "; ".join(f"{tier.name} {tier.span}: {_number(tier.bandwidth_bytes_per_s, 1e9)}" for tier in spec.tiers)
    yield _link(spec.source)


def _model(spec: ModelSpec) -> Iterable[str]:
    count = count_parameters(spec)
    yield f"`{spec.name}`"
    yield f"{count.total / 1e9:.3f}" + (f" ({count.active / 1e9:.3f})" if spec.moe else "")
    yield f"{spec.encoder.num_layers} + {spec.num_layers}" if spec.encoder else str(spec.num_layers)
    yield str(spec.hidden_size)
    yield f"{spec.num_heads}/{spec.num_kv_heads}" if spec.num_kv_heads != spec.num_heads else str(spec.num_heads)
    yield f"{spec.moe.num_experts}, {spec.moe.experts_per_token} per token" if spec.moe else ""
    yield str(spec.vocab_size) if spec.vocab_size else ""
    yield _link(spec.source)


def _number(value: float | None, unit: float) -> str:
    return "" if value is None else f"{value / unit:.10g}"


def _link(source: str) -> str:
    url = re.search(r"https://[^\s,;()]+", source)
    assert url is not None, source
    return f"[source]({url.group().rstrip('.:')})"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
