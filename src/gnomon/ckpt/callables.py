"""What calling the names in a pickle would do: which make plain data, which are unknown, which run something."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from gnomon.ckpt.inert import Call, External, Global, Members, Pairs
from gnomon.ckpt.printing import SHORT_TEXT, shorten
from gnomon.ckpt.tensors import LOAD_FROM_BYTES, UNDERSTOOD

_MAX_ITEMS = 4

# names of the standard library that only make data
_DATA = {
    "builtins": "set frozenset list dict tuple bytes bytearray str int float complex bool slice range object",
    "collections": "OrderedDict defaultdict Counter deque ChainMap UserDict UserList UserString",
    "copyreg": "_reconstructor __newobj__ __newobj_ex__",
    "argparse": "Namespace",
    "types": "SimpleNamespace MappingProxyType",
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
    "zoneinfo": "ZoneInfo._unpickle",
    "ipaddress": "IPv4Address IPv6Address",
}
HARMLESS = frozenset(f"{module}.{name}" for module, names in _DATA.items() for name in names.split())
_KNOWN = UNDERSTOOD | {
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    LOAD_FROM_BYTES,
}
_REBUILD = re.compile(r"torch\._utils\._rebuild_\w+")
# the classes below these names, but not the functions
_KNOWN_CLASSES = (
    "torch.distributed._mesh_layout.",
    "torch.distributed._shard.",
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.distributed.checkpoint.metadata.",
    "torch.distributed.device_mesh.DeviceMesh",
    "torch.distributed.tensor.",
)
_THROUGH_INSIDES = re.compile(r"\.__\w+__\.")  # such as `.__globals__.`
# names outside the standard library that load or run what they are given
_RUNNING = (
    "cloudpickle.",
    "dill.",
    "joblib.",
    "numpy.ctypeslib.",
    "numpy.distutils.",
    "numpy.f2py.",
    "numpy.lib._npyio_impl.",
    "numpy.lib.format.",
    "numpy.lib.npyio.",
    "numpy.load",
    "numpy.testing.",
    "pandas.eval",
    "pandas.io.",
    "pandas.read_pickle",
    "pip.",
    "pkg_resources.",
    "setuptools.",
    "torch.classes.",
    "torch.compile",
    "torch.distributed.distributed_c10d._tensor_to_object",
    "torch.distributed.elastic.",
    "torch.distributed.launch",
    "torch.distributed.rpc.",
    "torch.distributed.run",
    "torch.export.",
    "torch.fx.",
    "torch.hub.",
    "torch.jit.",
    "torch.load",
    "torch.multiprocessing.",
    "torch.ops.",
    "torch.package.",
    "torch.serialization._",
    "torch.serialization.load",
    "torch.testing.",
    "torch.utils.",
    "torch._dynamo.",
    "torch._inductor.",
    "torch._utils._import_dotted_name",
)


def is_known(name: str) -> bool:
    """Return whether gnomon understands what calling `name` makes."""
    is_class = name.rpartition(".")[2].lstrip("_")[:1].isupper()
    is_listed = name in HARMLESS or name in _KNOWN or _REBUILD.fullmatch(name) is not None
    return is_listed or (is_class and name.startswith(_KNOWN_CLASSES))


def runs_something(name: str) -> bool:
    """Return whether calling `name` does more than make data, as far as its module tells.

    True for what is not plain data in the standard library, for loaders and compilers, for what is reached through
    the insides of an object, and for the empty name: the result of another call.
    """
    if is_known(name):
        return False
    top = name.partition(".")[0]
    if top == "builtins" and name.endswith(("Error", "Exception", "Warning")):
        return False
    if not name or top in sys.stdlib_module_names or top in ("posix", "nt"):
        return True
    return name.startswith(_RUNNING) or _THROUGH_INSIDES.search(name) is not None


def describe(value: object, depth: int = 3) -> str:
    """Return a short text for any value of a pickle, calls as Python would write them: `posix.system('ls')`."""
    if isinstance(value, Global):
        return shorten(value.dotted)
    if isinstance(value, str | bytes | bytearray):
        return shorten(repr(value[:SHORT_TEXT]), more=len(value) > SHORT_TEXT)
    if isinstance(value, int) and abs(value) >= 2**63:
        return f"<integer of {value.bit_length()} bits>"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if depth > 0 and isinstance(value, Call):
        return f"{describe(value.function, depth - 1)}({_join(value.arguments, depth)})"
    if depth > 0 and isinstance(value, list | tuple):
        return f"[{_join(value, depth)}]" if isinstance(value, list) else f"({_join(value, depth)})"
    names = {Pairs: "dict", Members: "set", External: "storage"}
    return f"<{names.get(type(value), type(value).__name__.lower())}>"


def _join(items: Sequence[object], depth: int) -> str:
    texts = [describe(item, depth - 1) for item in items[:_MAX_ITEMS]]
    return ", ".join([*texts, "..."] if len(items) > _MAX_ITEMS else texts)
