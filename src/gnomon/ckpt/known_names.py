"""The names whose calls gnomon understands: they make plain data, arrays or tensors, and nothing else."""

from __future__ import annotations

import re

from gnomon.ckpt.tensors import LOAD_FROM_BYTES, UNDERSTOOD

_STANDARD = {
    "builtins": "set frozenset list dict tuple bytes bytearray str int float complex bool slice range object Ellipsis "
    "NotImplemented",
    "collections": "OrderedDict defaultdict Counter deque ChainMap UserDict UserList UserString",
    "copyreg": "_reconstructor __newobj__ __newobj_ex__",
    "argparse": "Namespace",
    "types": "SimpleNamespace MappingProxyType",
    "typing": "Any Callable Dict FrozenSet Iterable List Literal Mapping Optional Sequence Set Tuple Type Union",
    "pathlib": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "pathlib._local": "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath",
    "datetime": "datetime date time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID SafeUUID",
    "random": "Random",
    "functools": "partial",
    "operator": "itemgetter attrgetter",
    "_codecs": "encode",
    "_io": "BytesIO StringIO",
    "io": "BytesIO StringIO",
    "re": "_compile",
    "logging": "getLogger",
    "signal": "Signals",
    "zoneinfo": "ZoneInfo._unpickle",
    "ipaddress": "IPv4Address IPv6Address",
}
_NUMPY = {
    "numpy": "dtype ndarray matrix recarray record poly1d bool bool_ byte ubyte short ushort intc uintc int_ uint intp "
    "uintp long ulong longlong ulonglong half single double longdouble csingle cdouble clongdouble int8 int16 int32 "
    "int64 uint8 uint16 uint32 uint64 float16 float32 float64 float96 float128 complex64 complex128 complex192 "
    "complex256 str_ bytes_ void object_ datetime64 timedelta64 character flexible floating complexfloating generic "
    "inexact integer number signedinteger unsignedinteger",
    "numpy.char": "chararray",
    "numpy.core.defchararray": "chararray",
    "numpy.core.multiarray": "scalar",
    "numpy.core.records": "recarray record",
    "numpy._core.multiarray": "scalar",
    "numpy._core._internal": "_convert_to_stringdtype_kwargs",
    "numpy.ma.core": "_mareconstruct MaskedArray MaskedConstant mvoid",
    "numpy.matrixlib.defmatrix": "matrix",
    "numpy.rec": "recarray record",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64 PCG64DXSM",
    "numpy.random._philox": "Philox",
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "numpy.random._sfc64": "SFC64",
    "numpy.random.bit_generator": "__pyx_unpickle_SeedSequence SeedSequence",
}
_TORCH = {
    "torch": "Size device",
    "torch._dynamo.decorators": "_DimRange",
    "torch.amp.grad_scaler": "_refresh_per_optimizer_state",
    "torch.cuda.amp.grad_scaler": "_refresh_per_optimizer_state",
    "torch.distributed.remote_device": "_remote_device",
    "torch.jit._pickle": "build_boollist build_doublelist build_intlist build_tensorlist restore_type_tag",
    "torch.nested._internal.nested_tensor": "_rebuild_njt",
    "torch.serialization": "_get_layout",
}
_LISTED = UNDERSTOOD | {
    LOAD_FROM_BYTES,
    *(f"{module}.{name}" for part in (_STANDARD, _NUMPY, _TORCH) for module in part for name in part[module].split()),
}
# rebuild functions, element types, results of functions, and the pure functions that modules keep as activations;
# the names that are left out call a function that they are given, or open a file
_PATTERNS = re.compile(
    r"torch\.("
    r"_utils\._rebuild_\w+"
    r"|bool|bfloat16|(q?u?int|float|complex|bits)\d\w*|per_(tensor|channel)_\w+"
    r"|return_types\.(?!pytree_|register_)[a-z]\w*"
    r"|(nn\.)?functional\.(?!boolean_|handle_|overload|triplet_margin_with_)[a-z]\w*"
    r"|nn\.init\.[a-z]\w*"
    r"|_C\._(VariableFunctionsClass|fft|linalg|nn|special)\.(?!from_file)[a-z]\w*"
    r")"
)
# the classes below these names, but not the functions
_CLASSES_BELOW = (
    "torch.distributed._mesh_layout.",
    "torch.distributed._shard.",
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.distributed.checkpoint.metadata.",
    "torch.distributed.device_mesh.DeviceMesh",
    "torch.distributed.tensor.",
)


def is_known(name: str) -> bool:
    """Return whether gnomon understands what calling `name` makes."""
    is_listed = name in _LISTED or _PATTERNS.fullmatch(name) is not None
    return is_listed or (is_class(name) and name.startswith(_CLASSES_BELOW))


def is_class(name: str) -> bool:
    """Return whether the last part of a name is written as classes are: with a capital, after any underscores."""
    return name.rpartition(".")[2].lstrip("_")[:1].isupper()
