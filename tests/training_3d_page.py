"""gnomon's column in the tables of docs/3dtrn.md, from reports on the examples: `python tests/training_3d_page.py`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from gnomon.plan.training_3d.result import Gemm, GradientCollective, Training3D
from training_3d_fixtures import component, report

PAGE = Path(__file__).parents[1] / "docs" / "3dtrn.md"
GIB, MIB = 2.0**30, 2.0**20

Cells = dict[str, Callable[[Training3D], str]]


def state(found: Training3D, *names: str) -> str:
    """Return the bytes of model states in GiB, with commas between them."""
    sizes = {item.name: f"{item.bytes / GIB:.3f}" for item in found.memory.states}
    return ", ".join(sizes[name] for name in names)


def collective(found: Training3D, name: str) -> GradientCollective:
    """Return a collective of data parallelism."""
    return next(item for item in found.data_parallel.collectives if item.name.startswith(name))


def _slower(found: Training3D) -> str:
    collectives = found.data_parallel.collectives
    whole, one_site = sum(item.total_s for item in collectives), sum(item.one_site_s for item in collectives)
    return f"{100 * (whole / one_site - 1):.1f}% slower"


def _bubble(found: Training3D) -> str:
    equal, own = found.bubble.ideal_fraction, found.bubble.fraction
    return f"{100 * equal:.2f}% with equal stages, {100 * own:.2f}% with the head on the last"


def gemm(found: Training3D, name: str) -> Gemm:
    """Return a matrix product of the forward pass."""
    return next(item for item in found.gemms if item.name == name)


def _gemm_ms(found: Training3D, *names: str) -> str:
    return ", ".join(f"{1e3 * gemm(found, name).compute_s:.3f}" for name in names) + " ms"


def _optimizer(found: Training3D) -> str:
    own = [item.bytes for item in found.memory.states if item.name not in ("params", "grad_buffer")]
    return f"{sum(own) / GIB:.3f} GiB"


TIMES: Cells = {
    "iteration time": lambda found: f"{found.final.iteration_time_s:.2f} s",
    "MFU": lambda found: f"{100 * found.final.mfu:.2f}%",
}
TIMES_OF_PARTS: Cells = {
    **TIMES,
    "transformer block": lambda found: f"{component(found, 'Transformer Block'):.2f} s",
    "bubble": _bubble,
}

CELLS: dict[str, Cells] = {
    "llama3_70b": {
        **TIMES_OF_PARTS,
        "parameters": lambda found: f"{found.architecture.parameters / 1e9:.2f} B",
        "products at peak: QKV, output, up, down": lambda found: _gemm_ms(
            found, "QKV Projection", "Attention Combine Projection", "MLP Up Projection", "MLP Down Projection"
        ),
        "params, grad_buffer": lambda found: f"{state(found, 'params', 'grad_buffer')} GiB",
        "params (opt)": lambda found: f"{state(found, 'params (opt)')} GiB",
        "exp_avg, exp_avg_squared": lambda found: f"{state(found, 'exp_avg')} GiB each",
        "activations of a layer and micro-batch": lambda found: (
            f"{found.memory.activations.per_layer_bytes / MIB:.1f} MiB"
        ),
        "activations": lambda found: f"{found.memory.activations.total_bytes / GIB:.3f} GiB",
        "framework and allocator": lambda found: f"{found.memory.framework_bytes / GIB:.3f} GiB",
        "total memory": lambda found: f"{found.memory.total_bytes / GIB:.3f} GiB",
        "transfer between stages": lambda found: f"{found.pipeline[0].bytes / MIB:.1f} MiB per stage and micro-batch",
        "reduce-scatter of gradients": lambda found: f"{collective(found, 'Reduce-Scatter').total_s:.2f} s",
        "head": lambda found: f"{1e3 * component(found, 'LM Head and Loss'):.0f} ms",
        "ideal iteration time": lambda found: f"{found.final.ideal_iteration_time_s:.3f} s",
    },
    "llama3_70b_cross_dc": {
        **TIMES,
        "total memory": lambda found: f"{found.memory.total_bytes / GIB:.3f} GiB",
        "data parallelism over datacentres": _slower,
    },
    "gpt_oss_120b": {
        **TIMES_OF_PARTS,
        "parameters (active)": lambda found: (
            f"{found.architecture.parameters / 1e9:.2f} B ({found.architecture.active_parameters / 1e9:.2f} B)"
        ),
        "optimizer state": _optimizer,
        "activations of a layer and micro-batch": lambda found: (
            f"{found.memory.activations.per_layer_bytes / MIB:.1f} MiB"
        ),
        "logits, loss and transients": lambda found: f"{found.memory.activations.rest_bytes / GIB:.3f} GiB",
        "total memory": lambda found: f"{found.memory.total_bytes / GIB:.3f} GiB, does not fit in 40 GiB",
        "attention output at peak": lambda found: (
            f"{gemm(found, 'Attention Combine Projection').flops / 1e9:.2f} GFLOP"
        ),
        "head": lambda found: f"{component(found, 'LM Head and Loss'):.2f} s",
    },
}
"""What gnomon's column says, by example and row."""


def cells(example: str) -> dict[str, str]:
    """Return gnomon's cells of a table as the example gives them now."""
    found = report(example, fixed=False)
    return {quantity: text(found) for quantity, text in CELLS[example].items()}


def on_page(page: str, example: str, quantity: str) -> str:
    """Return the cell that the page shows."""
    match = _row(example, quantity).search(page)
    assert match is not None, f"docs/3dtrn.md has no row '{quantity}' under {example}"
    return match[2].strip()


def refreshed(page: str) -> str:
    """Return the page with gnomon's column as it is now."""
    for example in CELLS:
        for quantity, text in cells(example).items():
            # a function, because a text could hold what looks like a group
            page = _row(example, quantity).sub(lambda match, text=text: f"{match[1]}{text}{match[3]}", page)
    return page


def _row(example: str, quantity: str) -> re.Pattern[str]:
    """Return what finds a row: all up to the third cell, the cell, the rest."""
    section = rf"(### {example}:(?:(?!\n### ).)*?\n\| {re.escape(quantity)} \| [^|\n]* \| )([^|\n]*?)( \|)"
    return re.compile(section, re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
