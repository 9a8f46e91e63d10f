"""Walk through what a pickle or a JSON file says, and list the tensors and the other values that it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gnomon.ckpt import dtypes
from gnomon.ckpt.contents import TensorEntry, Value, ValueEntry
from gnomon.ckpt.inert import Call, Members, as_pairs, attributes, state_pairs
from gnomon.ckpt.keys import Pair, Path, entries
from gnomon.ckpt.modules import is_module, module_parts
from gnomon.ckpt.tensors import StorageRecord, TensorRecord, as_tensor
from gnomon.ckpt.values import MAX_ITEMS, as_scalar, as_simple, is_reconstructor, is_scalar, type_name
from gnomon.errors import CheckpointError

MAX_VISITS = 1_000_000
MAX_REPEATS = 20
FREE_REPEATS = 10_000
"""So many containers may be met again; beyond, each one `MAX_REPEATS` times. Nested doubling meets few ones often."""

MAX_DEPTH = 50
ATTRIBUTES = "(attributes)"
"""Below this name are the tensors of a module that its `state_dict()` does not have."""

_SEQUENCES = {f"builtins.{name}": name for name in ("list", "tuple", "set", "frozenset")} | {
    "collections.deque": "deque"
}


class Walker:
    """Lists what it is led through. `source` names the file, for the storages of its tensors."""

    def __init__(self, source: str, nested: Mapping[int, StorageRecord] | None = None) -> None:
        self.tensors: list[TensorEntry] = []
        self.values: list[ValueEntry] = []
        self.storages: dict[str, StorageRecord] = {}
        self._source = source
        self._nested = nested or {}
        self._visits = 0
        self._containers = 0
        self._distinct: set[int] = set()
        self._ancestors: set[int] = set()

    def walk(self, value: Any, path: Path = ()) -> None:
        """List `value` and all that is below it; raise CheckpointError when that is more than any checkpoint holds."""
        self._visit(1)
        if id(value) in self._ancestors:
            self.add_value(path, type_name(value), "<refers to itself>")
        elif len(path) > MAX_DEPTH:
            self.add_value(path, type_name(value), f"<nested more than {MAX_DEPTH} levels deep>")
        elif (tensor := as_tensor(value, self._nested)) is not None:
            self.add_tensor(path, tensor)
        else:
            self._count(value)
            self._ancestors.add(id(value))
            self._walk_plain(value, path)
            self._ancestors.discard(id(value))

    def add_tensor(self, path: Path, tensor: TensorRecord) -> None:
        """List a tensor."""
        storage = tensor.storage
        self._keep_storage(storage)
        self.tensors.append(
            TensorEntry(
                path=path,
                name=".".join(path),
                shape=tensor.shape,
                dtype=tensor.dtype,
                bytes=dtypes.size_bytes(tensor.dtype, tensor.num_elements),
                kind=tensor.kind,
                storage=None if storage is None else f"{self._source}:{storage.key}",
                storage_bytes=0 if storage is None else storage.size_bytes,
                offset=tensor.offset,
                strides=tensor.strides,
                num_elements=tensor.num_elements,
            )
        )

    def add_value(self, path: Path, kind: str, value: Value = None, length: int | None = None) -> None:
        """List anything but a tensor."""
        self.values.append(ValueEntry(path=path, name=".".join(path), type=kind, value=value, length=length))

    def _keep_storage(self, storage: StorageRecord | None) -> None:
        known = None if storage is None else self.storages.get(storage.key)
        if storage is not None and (known is None or known.size_bytes < storage.size_bytes):
            self.storages[storage.key] = storage

    def _visit(self, count: int) -> None:
        self._visits += count
        if self._visits > MAX_VISITS:
            raise CheckpointError(f"It expands to more than {MAX_VISITS} entries, which gnomon refuses to list.")

    def _count(self, value: Any) -> None:
        if is_scalar(value):
            return
        self._containers += 1
        self._distinct.add(id(value))
        if self._containers > FREE_REPEATS + MAX_REPEATS * len(self._distinct):
            raise CheckpointError(
                f"It expands to more than {self._containers - 1} entries out of {len(self._distinct)} that it repeats, "
                "which gnomon refuses to list."
            )

    def _walk_plain(self, value: Any, path: Path) -> None:
        pairs = as_pairs(value)
        if pairs is not None:
            if not pairs:
                self.add_value(path, "dict", None, 0)
            self._walk_entries(path, pairs)
        elif isinstance(value, Call):
            self._walk_call(value, path)
        elif isinstance(value, Members):
            self._walk_items(value.items, "set", path)
        elif isinstance(value, list | tuple):
            self._walk_items(value, type_name(value), path)
        else:
            scalar, length = as_scalar(value)
            self.add_value(path, type_name(value), scalar, length)

    def _walk_entries(self, path: Path, *groups: Sequence[Pair]) -> None:
        """Walk through dictionaries that are shown together."""
        self._visit(sum(map(len, groups)))
        found = entries(*groups)
        self._visit(-len(found))  # each is a visit of its own
        for name, item in found:
            self.walk(item, (*path, name))

    def _walk_items(self, items: Sequence[Any], kind: str, path: Path) -> None:
        if all(is_scalar(item) for item in items):
            self.add_value(path, kind, tuple(as_scalar(item)[0] for item in items[:MAX_ITEMS]), len(items))
        else:
            for index, item in enumerate(items):
                self.walk(item, (*path, str(index)))

    def _walk_call(self, call: Call, path: Path) -> None:
        if call.name in _SEQUENCES and len(call.arguments) <= 1:
            items = _items(call)
            if items is not None:
                self._walk_items(items, _SEQUENCES[call.name], path)
                return
        simple = as_simple(call)
        if simple is not None:
            self.add_value(path, *simple)
            return
        self.add_value(path, type_name(call))
        if is_module(call):
            self._walk_module(call, path)
        else:
            self._walk_object(call, path)

    def _walk_object(self, call: Call, path: Path) -> None:
        """List what an object was made of, and what was put into it."""
        arguments = _constructor_arguments(call)
        if arguments:
            self.walk(arguments, (*path, "(arguments)"))
        groups = state_pairs(call.state)
        if groups is None:
            self.walk(call.state, (*path, "(state)"))
        pairs = call.pairs or []
        own = [_without_copies(group, pairs) for group in groups or ()]
        self._walk_entries(path, *own, pairs, list(enumerate(call.items or ())))

    def _walk_module(self, call: Call, path: Path) -> None:
        """List a `torch.nn.Module` under the names of its `state_dict()`, and its public attributes."""
        parts, left_out, public = module_parts(attributes(call))
        for buffer in left_out:
            tensor = as_tensor(buffer, self._nested)
            self._keep_storage(None if tensor is None else tensor.storage)
        self._walk_entries(path, *parts)
        before = len(self.tensors)
        self._walk_entries(path, public)
        self.tensors[before:] = [_below_attributes(tensor, len(path)) for tensor in self.tensors[before:]]


def _below_attributes(tensor: TensorEntry, depth: int) -> TensorEntry:
    """Return a tensor with `ATTRIBUTES` in its path, behind so many parts."""
    path = (*tensor.path[:depth], ATTRIBUTES, *tensor.path[depth:])
    return tensor.model_copy(update={"path": path, "name": ".".join(path)})


def _without_copies(pairs: Sequence[Pair], items: Sequence[Pair]) -> list[Pair]:
    """Return the attributes that are not items as well: some dictionaries keep each of their items as an attribute."""
    same = {key: item for key, item in items if isinstance(key, str)}
    return [(key, value) for key, value in pairs if not (isinstance(key, str) and _is_same(same.get(key, same), value))]


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (is_scalar(one) and is_scalar(other) and type(one) is type(other) and bool(one == other))


def _items(call: Call) -> list[Any] | None:
    """Return the items of a sequence that was made from another one; None when that is not a plain one."""
    first = call.arguments[0] if call.arguments else ()
    if isinstance(first, Members):
        first = first.items
    return [*first, *(call.items or ())] if isinstance(first, list | tuple) else None


def _constructor_arguments(call: Call) -> Sequence[Any]:
    if is_reconstructor(call):
        return ()
    return call.arguments if call.keywords is None else (*call.arguments, call.keywords)
