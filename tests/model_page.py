"""The table of constants of docs/model.md from the catalog's files: `python tests/model_page.py` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gnomon.spec import DeviceRates, StackSpec
from gnomon.spec._noun import read_mapping
from gnomon.spec.catalog import list_stacks, load_stack

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "model.md"
EFFICIENCIES = ROOT / "src" / "gnomon" / "spec" / "catalog" / "efficiencies"
BEGIN, END = "<!-- constants: python tests/model_page.py -->\n", "<!-- end of constants -->\n"
UNITS = {"half_depth": "elements", "kernel_s": "s", "reference_power_w": "W", "dispatch_s": "s"}
UNITS |= {"collective_dispatch_s": "s", "step_overhead_s": "s", "framework_bytes": "bytes", "gradient_bytes": "bytes"}


def render_constants() -> str:
    """Return the tables of every constant: value, unit, meaning, origin."""
    parts = ["### Accelerator generations\n"]
    for path in sorted(EFFICIENCIES.glob("*.yaml")):
        rates = DeviceRates.from_mapping({"name": path.stem, **read_mapping(path)})
        rows = [_row(DeviceRates, name, getattr(rates, name), rates.sources.get(name, "")) for name in _fields(rates)]
        parts.append(_table(path.stem, rows))
    parts.append("### Software families\n")
    for name in list_stacks():
        stack = load_stack(name)
        rows = [_row(StackSpec, field, getattr(stack, field), "") for field in _fields(stack)]
        parts.append(_table(name, rows) + f"\nOrigin: {' '.join(stack.sources.split())}\n")
    return "\n".join(parts)


def render_page() -> str:
    """Return the page with its tables renewed."""
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + "\n" + render_constants() + "\n" + END + rest.split(END)[1]


def _fields(noun: DeviceRates | StackSpec) -> list[str]:
    return [name for name in type(noun).model_fields if name not in ("name", "sources")]


def _row(kind: type[DeviceRates] | type[StackSpec], name: str, value: Any, origin: str) -> str:
    text = ", ".join(f"{key} {v:g}" for key, v in value.items()) if hasattr(value, "items") else _value(value)
    meaning = kind.model_fields[name].description or name
    return f"| `{name}` | {text} | {UNITS.get(name, '')} | {meaning} | {' '.join(origin.split())} |"


def _value(value: Any) -> str:
    if isinstance(value, (bool, str)) or value is None:
        return str(value).lower()
    return f"{value:g}"


def _table(title: str, rows: list[str]) -> str:
    head = "| constant | value | unit | meaning | origin |\n|---|---|---|---|---|"
    return f"#### {title}\n\n{head}\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render_page())
