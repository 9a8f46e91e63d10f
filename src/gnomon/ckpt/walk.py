"""Walk through what a pickle or a JSON file says, and list the tensors and the other values that it holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gnomon.ckpt import dtypes
from gnomon.ckpt.callables import describe
from gnomon.ckpt.contents import Scalar, TensorEntry, Value, ValueEntry
from gnomon.ckpt.inert import Call, External, Global, Members, Pairs, as_pairs, attributes
from gnomon.ckpt.printing import MAX_TEXT, encodable, printable
from gnomon.ckpt.tensors import StorageRecord, TensorRecord, as_dtype, as_numpy_dtype, as_shape, as_tensor
from gnomon.errors import CheckpointError

MAX_VISITS = 1_000_000
MAX_REPEATS = 20
FREE_REPEATS = 10_000
"""So many containers may be met again; beyond, each one `MAX_REPEATS` times. Nested doubling meets few ones often."""

MAX_DEPTH = 50
MAX_ITEMS = 100

Path = tuple[str, ...]
Pair = tuple[Any, Any]

_SEQUENCES = {f"builtins.{name}": name for name in ("list", "tuple", "set", "frozenset")} | {
    "collections.deque": "deque"
}
_ENCODE = "_codecs.encode"
_BYTES = (_ENCODE, "builtins.bytes", "builtins.bytearray")  # bytes are the first until protocol 2
_MODULE_ATTRIBUTES = {"_parameters", "_buffers", "_modules"}


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
        self._visits += 1
        if self._visits > MAX_VISITS:
            raise CheckpointError(f"It expands to more than {MAX_VISITS} entries, which gnomon refuses to list.")
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
        if storage is not None:
            known = self.storages.get(storage.key)
            if known is None or known.size_bytes < storage.size_bytes:
                self.storages[storage.key] = storage
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
            self._walk_pairs(pairs, path)
        elif isinstance(value, Call):
            self._walk_call(value, path)
        elif isinstance(value, Members):
            self._walk_items(value.items, "set", path)
        elif isinstance(value, list | tuple):
            self._walk_items(value, type_name(value), path)
        else:
            scalar, length = as_scalar(value)
            self.add_value(path, type_name(value), scalar, length)

    def _walk_pairs(self, pairs: Sequence[Pair], path: Path) -> None:
        if not pairs:
            self.add_value(path, "dict", None, 0)
        for key, item in _last_of_each(pairs):
            self.walk(item, (*path, key))

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
        inner = attributes(call)
        if inner.keys() >= _MODULE_ATTRIBUTES:
            self._walk_pairs(_module_pairs(inner), path)
            return
        arguments = _constructor_arguments(call)
        if arguments:
            self.walk(arguments, (*path, "(arguments)"))
        if not inner and call.state is not None:
            self.walk(call.state, (*path, "(state)"))
        for key, item in _last_of_each([*inner.items(), *(call.pairs or ())]):
            self.walk(item, (*path, key))
        for index, item in enumerate(call.items or ()):
            self.walk(item, (*path, str(index)))

    def add_value(self, path: Path, kind: str, value: Value = None, length: int | None = None) -> None:
        """List anything but a tensor."""
        self.values.append(ValueEntry(path=path, name=".".join(path), type=kind, value=value, length=length))


def type_name(value: Any) -> str:
    """Return the type of a value, of a call the name of what is called."""
    if isinstance(value, Call):
        return printable(value.arguments[0].dotted if _is_reconstructor(value) else value.name or "unknown")
    if as_dtype(value) is not None:
        return "torch.dtype"
    names = {Pairs: "dict", Members: "set", Global: "name", External: "storage", type(None): "None"}
    return names.get(type(value), type(value).__name__)


def is_scalar(value: Any) -> bool:
    """Return whether a value is shown in one line: a number, text, bytes, None, or the name of something."""
    return value is None or isinstance(value, bool | int | float | str | bytes | bytearray | Global)


def as_scalar(value: Any) -> tuple[Scalar, int | None]:
    """Return a scalar as JSON knows it, and the length of what is shortened; numbers that JSON lacks become text."""
    if isinstance(value, str):
        return encodable(value), len(value) if len(value) > MAX_TEXT else None
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>", len(value)
    if isinstance(value, Global):
        return printable(value.dotted), None
    if value is None or isinstance(value, bool):
        return value, None
    if isinstance(value, int) and abs(value) < 2**63:
        return value, None
    if isinstance(value, float) and math.isfinite(value):
        return value, None
    return describe(value), None


def as_simple(call: Call) -> tuple[str, Value, int | None] | None:
    """Return type, value and length of a call that makes one value: a device, a path, a NumPy number, an enum."""
    name = call.name
    if name == "torch.Size" and (shape := as_shape(call)) is not None:
        return name, shape, len(shape)
    if name in _BYTES and (not call.arguments or isinstance(call.arguments[0], str | bytes)):
        length = len(call.arguments[0]) if call.arguments else 0
        return "bytes", f"<{length} bytes>", length
    if name.endswith("core.multiarray.scalar") and (number := _numpy_scalar(call)) is not None:
        return number
    if call.state is not None or call.items or call.pairs or call.keywords or not call.name:
        return None
    if _is_reconstructor(call) or not all(is_scalar(argument) for argument in call.arguments):
        return None
    texts = [as_scalar(argument)[0] for argument in call.arguments]
    if name == "torch.device":
        return name, ":".join(str(text) for text in texts), None
    if name.startswith("pathlib."):
        return printable(name), "/".join(str(text) for text in texts).replace("//", "/"), None
    value: Value = None if not texts else texts[0] if len(texts) == 1 else tuple(texts[:MAX_ITEMS])
    return printable(name), value, None


def key_text(key: Any) -> str:
    """Return the key of a dictionary as text that is safe to print."""
    return printable(key if isinstance(key, str) else describe(key))


def _last_of_each(pairs: Iterable[Pair]) -> list[tuple[str, Any]]:
    """Return texts of the keys and their values; a key that is set twice has the later value."""
    return list({key_text(key): item for key, item in pairs}.items())


def _module_pairs(inner: Mapping[str, Any]) -> list[Pair]:
    """Return what a `torch.nn.Module` holds, under the names of its `state_dict()`, and its public attributes."""
    parts = [pair for name in ("_parameters", "_buffers", "_modules") for pair in as_pairs(inner[name]) or ()]
    public = [(name, item) for name, item in inner.items() if not name.startswith("_") and name != "training"]
    return [pair for pair in parts if pair[1] is not None] + public


def _items(call: Call) -> list[Any] | None:
    """Return the items of a sequence that was made from another one; None when that is not a plain one."""
    first = call.arguments[0] if call.arguments else ()
    if isinstance(first, Members):
        first = first.items
    return [*first, *(call.items or ())] if isinstance(first, list | tuple) else None


def _is_reconstructor(call: Call) -> bool:
    """Return whether this is `copyreg._reconstructor(class, base, state)`, as protocols 0 and 1 make objects."""
    return call.name == "copyreg._reconstructor" and bool(call.arguments) and isinstance(call.arguments[0], Global)


def _constructor_arguments(call: Call) -> Sequence[Any]:
    if _is_reconstructor(call):
        return ()
    return call.arguments if call.keywords is None else (*call.arguments, call.keywords)


def _numpy_scalar(call: Call) -> tuple[str, Value, int | None] | None:
    """Return the number of NumPy's `scalar(dtype, bytes)`; None when the bytes do not fit."""
    dtype = as_numpy_dtype(call.arguments[0]) if len(call.arguments) == 2 else None
    data = call.arguments[1] if dtype is not None else None
    if isinstance(data, Call) and data.name == _ENCODE and isinstance(data.arguments[0], str):
        data = data.arguments[0].encode("latin-1", "ignore")
    if dtype is None or not isinstance(data, bytes) or len(data) != dtype.itemsize or not data:
        return None
    import numpy as np

    number = np.frombuffer(data, dtype)[0].item()
    value = str(number) if isinstance(number, complex) else as_scalar(number)[0]
    return f"numpy.{dtype.name}", value, None
