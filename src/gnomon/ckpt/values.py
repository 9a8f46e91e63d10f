"""Show what is no tensor: types by their names, and values that fit on one line."""

from __future__ import annotations

import math
from typing import Any

from gnomon.ckpt.callables import describe
from gnomon.ckpt.contents import Scalar, Value
from gnomon.ckpt.inert import Call, External, Global, Members, Pairs
from gnomon.ckpt.printing import MAX_TEXT, encodable, printable
from gnomon.ckpt.tensors import as_dtype, as_numpy_dtype, as_shape

MAX_ITEMS = 100
_ENCODE = "_codecs.encode"
_BYTES = (_ENCODE, "builtins.bytes", "builtins.bytearray")  # bytes are the first until protocol 2


def type_name(value: Any) -> str:
    """Return the type of a value, of a call the name of what is called."""
    if isinstance(value, Call):
        return printable(value.arguments[0].dotted if is_reconstructor(value) else value.name or "unknown")
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
    if is_reconstructor(call) or not all(is_scalar(argument) for argument in call.arguments):
        return None
    texts = [as_scalar(argument)[0] for argument in call.arguments]
    if name == "torch.device":
        return name, ":".join(str(text) for text in texts), None
    if name.startswith("pathlib."):
        return printable(name), "/".join(str(text) for text in texts).replace("//", "/"), None
    value: Value = None if not texts else texts[0] if len(texts) == 1 else tuple(texts[:MAX_ITEMS])
    return printable(name), value, None


def is_reconstructor(call: Call) -> bool:
    """Return whether this is `copyreg._reconstructor(class, base, state)`, as protocols 0 and 1 make objects."""
    return call.name == "copyreg._reconstructor" and bool(call.arguments) and isinstance(call.arguments[0], Global)


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
