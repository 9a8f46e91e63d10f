"""A checkpoint as a tree for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from gnomon.ckpt.collapse import Row, collapse, split_name
from gnomon.ckpt.contents import Amount, Checkpoint, TensorEntry, ValueEntry
from gnomon.ckpt.dtypes import short_name
from gnomon.ckpt.printing import printable, shorten
from gnomon.ckpt.totals import amount
from gnomon.units import format_bytes, format_count

_MAX_ROWS = 40
_MAX_LISTED = 10


@dataclass
class _Branch:
    """A container: its type where that matters, what lies directly in it, and the containers below."""

    kind: str = ""
    leaves: list[tuple[str, str]] = field(default_factory=list)
    branches: dict[str, _Branch] = field(default_factory=dict)
    tensors: list[TensorEntry] = field(default_factory=list)


def render_checkpoint(checkpoint: Checkpoint, full: bool = False) -> RenderableType:
    """Return the tree, the totals, and what is to be known; `full` lists every name and shortens nothing."""
    root = _root(checkpoint, full)
    kind = f"{root.kind}  " if root.kind else ""
    label = f"{printable(checkpoint.path)}  {kind}({checkpoint.format}, {_amount_text(checkpoint.total)})"
    tree = Tree(Text(label))
    _grow(tree, root, full)
    return Group(tree, *_totals(checkpoint), *_remarks(checkpoint, full))


def verdict(checkpoint: Checkpoint) -> str:
    """Return why this checkpoint is not to be loaded, as one message; empty for one that is whole and only data."""
    reasons = []
    if checkpoint.damage:
        reasons.append(f"is damaged: {checkpoint.damage[0]}{_more(checkpoint.damage)}")
    if checkpoint.warnings:
        what = checkpoint.warnings[0].removesuffix(" if loaded with pickle")
        reasons.append(f"runs more than it should when pickle loads it: it {what}{_more(checkpoint.warnings)}.")
    return f"'{printable(checkpoint.path)}' {' It '.join(reasons)}" if reasons else ""


def _more(items: Sequence[str]) -> str:
    return f" ({len(items) - 1} more above)" if len(items) > 1 else ""


def _root(checkpoint: Checkpoint, full: bool) -> _Branch:
    root = _Branch()
    containers = {entry.path for entry in checkpoint.values if _is_container(entry)}
    views: dict[object, str] = {}
    for tensor in checkpoint.tensors:
        view = (tensor.storage, tensor.offset, tensor.shape, tensor.strides) if tensor.storage else tensor.path
        first = views.setdefault(view, tensor.name)
        same = "" if first == tensor.name else f"  same as {first}"
        _place(root, tensor.path, _tensor_text(tensor) + same).append(tensor)
    for value in checkpoint.values:
        if value.path in containers:
            _descend(root, value.path).kind = printable(value.type)
    for value in checkpoint.values:
        if value.path not in containers:
            _place(root, value.path, _value_text(value, full))
    return root


def _place(root: _Branch, path: tuple[str, ...], text: str) -> list[TensorEntry]:
    """Hang a leaf where its path leads; return the list of tensors of the container at the top of that path."""
    branch = _descend(root, path[:-1])
    branch.leaves.append((path[-1] if path else "", text))
    return _descend(root, path[:1]).tensors if len(path) > 1 else []


def _descend(root: _Branch, path: tuple[str, ...]) -> _Branch:
    for part in path:
        root = root.branches.setdefault(part, _Branch())
    return root


def _is_container(entry: ValueEntry) -> bool:
    """Return whether an entry only says of which type an object with entries of its own is."""
    return entry.value is None and entry.length is None and entry.type not in ("None", "object")


def _grow(tree: Tree, branch: _Branch, full: bool) -> None:
    """Add a container to the tree. Numbered containers become part of the names, so that equal ones can be joined."""
    rows = [Row(split_name(name), text) for name, text in branch.leaves]
    for name, child in branch.branches.items():
        if name.isdecimal() and not full:
            rows += _flatten(name, child)
    shown = rows if full else collapse(rows)
    limit = len(shown) if full else _MAX_ROWS
    for row in shown[:limit]:
        count = f"  x {row.count}" if row.count > 1 else ""
        tree.add(Text.assemble((row.name or "(itself)", "bold"), f"  {row.text}", (count, "dim")))
    if len(shown) > limit:
        tree.add(Text(f"... and {len(shown) - limit} more lines; --full lists all", style="dim"))
    for name, child in branch.branches.items():
        if full or not name.isdecimal():
            label = Text.assemble((name, "bold cyan"), f"  {child.kind}" if child.kind else "")
            if child.tensors:
                label.append(f"  {_amount_text(amount(child.tensors))}", style="dim")
            _grow(tree.add(label), child, full)


def _flatten(prefix: str, branch: _Branch) -> list[Row]:
    """Return everything below a numbered container as rows whose names begin with its number."""
    rows = [Row(split_name(prefix), f"<{branch.kind}>")] if branch.kind else []
    rows += [Row(split_name(f"{prefix}.{name}"), text) for name, text in branch.leaves]
    for name, child in branch.branches.items():
        rows += _flatten(f"{prefix}.{name}", child)
    return rows


def _tensor_text(tensor: TensorEntry) -> str:
    shape = f"({', '.join(map(str, tensor.shape))}{',' if len(tensor.shape) == 1 else ''})"
    kind = "" if tensor.kind == "tensor" else f"  {tensor.kind}"
    return f"{shape} {short_name(tensor.dtype)}  {format_bytes(tensor.bytes)}{kind}"


def _value_text(value: ValueEntry, full: bool) -> str:
    content = value.value
    if isinstance(content, tuple):
        shown = ", ".join(_scalar_text(item) for item in content)
        brackets = "[]" if value.type == "list" else "()" if value.type in ("tuple", "torch.Size") else "{}"
        more = "" if value.length is None or value.length <= len(content) else ", ..."
        text = f"{brackets[0]}{shown}{more}{brackets[1]}"
    elif content is None and value.length == 0:
        text = "{}" if value.type == "dict" else "[]"
    else:
        text = _scalar_text(content) if value.type == "str" else printable(str(content))
    text = text if full else shorten(text)
    plain = value.type in ("int", "float", "bool", "str", "None", "list", "tuple", "dict", "set", "bytes")
    count = f"  {value.length} items" if isinstance(content, tuple) and len(content) > 8 else ""
    return f"{text}{count}" if plain else f"<{printable(value.type)}> {'' if content is None else text}".rstrip()


def _scalar_text(value: object) -> str:
    return printable(repr(value) if isinstance(value, str) and not value.startswith("<") else str(value))


def _amount_text(part: Amount) -> str:
    tensors = "1 tensor" if part.tensors == 1 else f"{part.tensors} tensors"
    return f"{tensors}, {format_count(part.elements)} elements, {format_bytes(part.bytes)}"


def _totals(checkpoint: Checkpoint) -> list[Text]:
    lines = [
        f"{short_name(dtype)}: {_amount_text(part)}" for dtype, part in checkpoint.by_dtype.items() if part.tensors
    ]
    lines.append(f"total: {_amount_text(checkpoint.total)}, shared storages once")
    if len(checkpoint.files) > 1:
        size = format_bytes(sum(entry.bytes for entry in checkpoint.files))
        lines.append(f"files: {len(checkpoint.files)}, {size} on the disk")
    return [Text(""), *(Text(line) for line in lines)]


def _remarks(checkpoint: Checkpoint, full: bool) -> list[Text]:
    lines = [Text(f"note: {printable(note)}") for note in checkpoint.notes]
    lines += [Text(f"warning: {printable(damage)}", style="bold red") for damage in checkpoint.damage]
    lines += [Text(f"warning: {warning}", style="bold red") for warning in checkpoint.warnings]
    if checkpoint.calls:
        names = [name if count == 1 else f"{name} ({count})" for name, count in checkpoint.calls.items()]
        listed = names if full else names[:_MAX_LISTED]
        more = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
        lines.append(Text(f"note: unknown to gnomon, so shown closed: {', '.join(listed)}{more}."))
    return lines
