"""Element types: their names in PyTorch, their sizes, and what other formats call them."""

from __future__ import annotations

_BITS = {
    **dict.fromkeys(("complex128",), 128),
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 64),
    **dict.fromkeys(("float32", "int32", "uint32", "complex32", "qint32"), 32),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16", "bits16"), 16),
    **dict.fromkeys(("int8", "uint8", "bool", "qint8", "quint8", "bits8"), 8),
    **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"), 8),
    "float4_e2m1fn_x2": 8,  # one element of this dtype is a byte that holds two numbers
    "float6_e2m3": 6,
    "float6_e3m2": 6,
    "float4_e2m1": 4,
    "quint4x2": 4,
    "quint2x4": 2,
}
_STORAGE_CLASSES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8",
    "QInt32Storage": "qint32",
    "QUInt8Storage": "quint8",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8",
}
_SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F6_E2M3": "float6_e2m3",
    "F6_E3M2": "float6_e3m2",
    "F4": "float4_e2m1",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_SHORT = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def is_dtype(name: str) -> bool:
    """Return whether PyTorch has a dtype of that name."""
    return name in _BITS


def size_bytes(dtype: str, num_elements: int) -> int:
    """Return the bytes of so many elements, rounded up to whole bytes."""
    return (num_elements * _BITS[dtype] + 7) // 8


def num_elements(dtype: str, num_bytes: int) -> int:
    """Return how many elements fit into so many bytes."""
    return num_bytes * 8 // _BITS[dtype]


def dtype_of_storage(class_name: str) -> str | None:
    """Return the dtype of `FloatStorage` and the like; None for a class that is no storage."""
    return _STORAGE_CLASSES.get(class_name)


def dtype_of_safetensors(code: object) -> str | None:
    """Return the dtype that a safetensors header calls `F32` and the like; None for an unknown code."""
    return _SAFETENSORS.get(code) if isinstance(code, str) else None


def short_name(dtype: str) -> str:
    """Return `bf16` for `bfloat16`, and likewise for the common floating-point types; others as they are."""
    return _SHORT.get(dtype, dtype)
