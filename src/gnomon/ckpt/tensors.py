"""Recognise tensors and arrays among the calls of a pickle.

The names are those of PyTorch's `torch/_utils.py`, `torch/_tensor.py` and `torch/storage.py` and of NumPy's
`multiarray`; an argument that is not what they take makes the call an unknown object, never an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from gnomon.ckpt import dtypes
from gnomon.ckpt.inert import Call, External, Global, attributes

Shape = tuple[int, ...]

_MAX_DIMENSIONS = 64
_MAX_SIZE = 2**62
_MAX_NESTING = 8
MAX_KEY = 200  # characters of the key of a storage
LOAD_FROM_BYTES = "torch.storage._load_from_bytes"


@dataclass(frozen=True, slots=True)
class StorageRecord:
    """The memory that tensors are views of."""

    key: str
    dtype: str
    num_elements: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole storage."""
        return dtypes.size_bytes(self.dtype, self.num_elements)


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor: its shape and dtype, and the part of a storage that it views. `kind` says what is special about it."""

    shape: Shape
    dtype: str
    storage: StorageRecord | None = None
    offset: int = 0
    strides: Shape = ()
    kind: str = "tensor"
    stored_shape: Shape | None = None  # of the part that the file holds, where that is less

    @property
    def num_elements(self) -> int:
        """Elements that the file holds of it."""
        return math.prod(self.shape if self.stored_shape is None else self.stored_shape)


def as_tensor(value: Any, nested: Mapping[int, StorageRecord] | None = None, depth: int = 0) -> TensorRecord | None:
    """Return the tensor or array that a call rebuilds; None when it is none, or not one that can be understood.

    `nested` holds the storages that were pickled inside the pickle, by the id of their call.
    """
    if not isinstance(value, Call) or depth > _MAX_NESTING:
        return None
    if value.name in _WRAPPERS:
        return _WRAPPERS[value.name](value, nested or {}, depth + 1)
    if value.name in _REBUILD:
        return _REBUILD[value.name](value, nested or {})
    return None


def as_dtype(value: Any) -> str | None:
    """Return the name of a `torch.dtype`, which is pickled as a name; None for anything else."""
    if isinstance(value, Global) and value.module == "torch" and dtypes.is_dtype(value.name):
        return value.name
    return None


def as_shape(value: Any) -> Shape | None:
    """Return a `torch.Size` or a tuple or list of sizes; None for anything else."""
    if isinstance(value, Call) and value.name == "torch.Size" and len(value.arguments) == 1:
        value = value.arguments[0]
    if not isinstance(value, tuple | list) or len(value) > _MAX_DIMENSIONS:
        return None
    return tuple(value) if all(is_size(item) for item in value) and math.prod(value) < _MAX_SIZE else None


def as_storage(value: Any, nested: Mapping[int, StorageRecord]) -> StorageRecord | None:
    """Return the storage that a reference names: ('storage', class, key, location, number of elements, ...)."""
    if isinstance(value, Call):
        return nested.get(id(value))
    identity = value.identity if isinstance(value, External) else None
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        return None
    _, storage_class, key, _, num_elements = identity[:5]
    name = storage_class.name if isinstance(storage_class, Global) else str(storage_class).rpartition(".")[2]
    dtype = dtypes.dtype_of_storage(name)
    if dtype is None or not isinstance(key, str) or not is_size(num_elements):
        return None
    return StorageRecord(str(key)[:MAX_KEY], dtype, num_elements)


def as_numpy_dtype(value: Any) -> Any:
    """Return the `numpy.dtype` that a call makes, of plain numbers and fixed-size text only; None for others."""
    if not isinstance(value, Call) or value.name not in ("numpy.dtype", "numpy.dtypes"):
        return None
    code = value.arguments[0] if value.arguments else None
    if not isinstance(code, str) or code[:1] not in "biufcSUV?" or not code[1:].isdecimal() or len(code) > 12:
        return None
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "|"
    import numpy as np

    try:
        return np.dtype(f"{order if order in ('<', '>') else '|'}{code}")
    except (TypeError, ValueError):
        return None


def is_size(value: Any) -> TypeGuard[int]:
    """Return whether a value is an integer from 0 to 2^62, as sizes and offsets are."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_SIZE


def _plain(call: Call, nested: Mapping[int, StorageRecord]) -> TensorRecord | None:
    """`_rebuild_tensor`, `_v2`, `_rebuild_qtensor`: (storage, offset, size, stride, ...); `_v3` also has a dtype."""
    if len(call.arguments) < 4:
        return None
    storage, offset = as_storage(call.arguments[0], nested), call.arguments[1]
    shape, strides = as_shape(call.arguments[2]), as_shape(call.arguments[3])
    if storage is None or shape is None or strides is None or len(shape) != len(strides) or not is_size(offset):
        return None
    dtype: str | None = storage.dtype
    if call.name.endswith("_v3"):
        dtype = as_dtype(call.arguments[6]) if len(call.arguments) > 6 else None
    return None if dtype is None else TensorRecord(shape, dtype, storage, offset, strides)


def _without_storage(call: Call, _: Mapping[int, StorageRecord]) -> TensorRecord | None:
    """`_rebuild_meta_tensor_no_storage`: (dtype, size, ...)."""
    if len(call.arguments) < 2:
        return None
    dtype, shape = as_dtype(call.arguments[0]), as_shape(call.arguments[1])
    return None if dtype is None or shape is None else TensorRecord(shape, dtype, kind="meta", stored_shape=(0,))


def _first_argument(call: Call, nested: Mapping[int, StorageRecord], depth: int) -> TensorRecord | None:
    """`_rebuild_parameter` and what copies a tensor to a device: (tensor or array, ...)."""
    return as_tensor(call.arguments[0], nested, depth) if call.arguments else None


def _device_tensor(call: Call, nested: Mapping[int, StorageRecord], depth: int) -> TensorRecord | None:
    """`_rebuild_device_tensor_from_...`: (data, dtype, ...), where the data may have another dtype."""
    data, dtype = _first_argument(call, nested, depth), as_dtype(call.arguments[1]) if len(call.arguments) > 1 else None
    return None if data is None or dtype is None else replace(data, dtype=dtype, kind="tensor")


def _typed(call: Call, nested: Mapping[int, StorageRecord], depth: int) -> TensorRecord | None:
    """`_rebuild_from_type`: (function, type, arguments of the function, state); DTensor holds its part in the state."""
    if len(call.arguments) < 4 or not isinstance(call.arguments[2], tuple):
        return None
    function, kind, arguments, state = call.arguments[:4]
    name = kind.name if isinstance(kind, Global) else "tensor"
    inner = Call(function, arguments)
    if inner.name == "torch._utils._rebuild_wrapper_subclass":
        if len(arguments) < 3:
            return None
        dtype, shape = as_dtype(arguments[1]), as_shape(arguments[2])
        local = as_tensor(attributes(Call(None, (), state=state)).get("_local_tensor"), nested, depth)
        if dtype is None or shape is None or local is None:
            return None
        return replace(local, shape=shape, kind=name, stored_shape=local.shape)
    found = as_tensor(inner, nested, depth)
    return found if found is None or name in ("Tensor", "Parameter") else replace(found, kind=name)


def _sharded(call: Call, nested: Mapping[int, StorageRecord], depth: int) -> TensorRecord | None:
    """`ShardedTensor` with one local shard: the state is (local shards, metadata, ...)."""
    if not isinstance(call.state, tuple) or len(call.state) < 2:
        return None
    shards, shape = call.state[0], as_shape(attributes(call.state[1]).get("size"))
    if not isinstance(shards, list) or len(shards) != 1 or shape is None:
        return None
    local = as_tensor(attributes(shards[0]).get("tensor"), nested, depth)
    return None if local is None else replace(local, shape=shape, kind="ShardedTensor", stored_shape=local.shape)


def _array(call: Call, _: Mapping[int, StorageRecord]) -> TensorRecord | None:
    """NumPy's `_reconstruct`, whose state is (version, shape, dtype, Fortran order, data)."""
    if not isinstance(call.state, tuple) or len(call.state) != 5:
        return None
    return _numpy(call.state[1], call.state[2])


def _buffer_array(call: Call, _: Mapping[int, StorageRecord]) -> TensorRecord | None:
    """NumPy's `_frombuffer`: (data, dtype, shape, order)."""
    return _numpy(call.arguments[2], call.arguments[1]) if len(call.arguments) == 4 else None


def _numpy(shape: Any, dtype: Any) -> TensorRecord | None:
    found, sizes = as_numpy_dtype(dtype), as_shape(shape)
    if found is None or sizes is None or not dtypes.is_dtype(found.name):
        return None
    return TensorRecord(sizes, found.name, kind="numpy array")


_REBUILD: dict[str, Callable[[Call, Mapping[int, StorageRecord]], TensorRecord | None]] = {
    "torch._utils._rebuild_tensor": _plain,
    "torch._utils._rebuild_tensor_v2": _plain,
    "torch._utils._rebuild_tensor_v3": _plain,
    "torch._utils._rebuild_qtensor": _plain,
    "torch._utils._rebuild_meta_tensor_no_storage": _without_storage,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.core.numeric._frombuffer": _buffer_array,
    "numpy._core.numeric._frombuffer": _buffer_array,
}
_WRAPPERS: dict[str, Callable[[Call, Mapping[int, StorageRecord], int], TensorRecord | None]] = {
    "torch._utils._rebuild_parameter": _first_argument,
    "torch._utils._rebuild_parameter_with_state": _first_argument,
    "torch._utils._rebuild_device_tensor_from_numpy": _device_tensor,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _device_tensor,
    "torch._utils._rebuild_xla_tensor": _device_tensor,
    "torch._tensor._rebuild_from_type": _typed,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.distributed._shard.sharded_tensor.api.ShardedTensor": _sharded,
}
UNDERSTOOD = frozenset({*_REBUILD, *_WRAPPERS})
