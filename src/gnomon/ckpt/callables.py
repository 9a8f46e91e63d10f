"""What importing and calling the names in a pickle would do: which make plain data, and which run something."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from gnomon.ckpt.inert import Call, External, Global, Members, Pairs
from gnomon.ckpt.known_names import is_class, is_known
from gnomon.ckpt.printing import SHORT_TEXT, shorten

_MAX_ITEMS = 4
_THROUGH_INSIDES = re.compile(r"\.__\w+__\.")  # such as `.__globals__.`
_FUNCTIONS_RUN = ("numpy", "torch")
"""Of these packages every function that is not known counts as running something: many call what they are given."""

# names outside the standard library that load or run what they are given; of `_FUNCTIONS_RUN`, the classes
_RUNNING = (
    "cloudpickle.",
    "dill.",
    "joblib.",
    "numpy.ctypeslib.",
    "numpy.distutils.",
    "numpy.f2py.",
    "numpy.lib._npyio_impl.",
    "numpy.lib.npyio.",
    "numpy.testing.",
    "pandas.eval",
    "pandas.io.",
    "pandas.read_pickle",
    "pip.",
    "pkg_resources.",
    "setuptools.",
    "torch._C.PyTorchFile",
    "torch._dynamo.",
    "torch._inductor.",
    "torch.classes.",
    "torch.distributed.elastic.",
    "torch.distributed.rpc.",
    "torch.export.",
    "torch.fx.",
    "torch.jit.",
    "torch.multiprocessing.",
    "torch.ops.",
    "torch.package.",
    "torch.serialization._",
    "torch.testing.",
    "torch.utils.",
)
# modules of the standard library, with all below them, that open, run or print something when they are imported
_RUN_ON_IMPORT = (
    *("antigravity", "idlelib", "this"),
    *("test.autotest", "test.crashers", "test.mp_fork_bomb", "test.reperf", "test.xmltests"),
)


def runs_something(name: str) -> bool:
    """Return whether calling `name` does more than make data, as far as its module tells.

    True for what is not plain data in the standard library, for functions of NumPy and PyTorch that are not known, for
    loaders and compilers, for what is reached through the insides of an object, and for the empty name: the result of
    another call.
    """
    if is_known(name):
        return False
    top = name.partition(".")[0]
    if top == "builtins" and name.endswith(("Error", "Exception", "Warning")):
        return False
    if not name or top in sys.stdlib_module_names or top in ("posix", "nt"):
        return True
    if name.startswith(_RUNNING) or _THROUGH_INSIDES.search(name) is not None:
        return True
    return top in _FUNCTIONS_RUN and not is_class(name)


def is_method(name: Global) -> bool:
    """Return whether a name is that of a function in a class of NumPy or PyTorch, as their objects refer to them."""
    holder, dot, _ = name.name.rpartition(".")
    return bool(dot) and is_class(holder) and name.dotted.partition(".")[0] in _FUNCTIONS_RUN


def runs_on_import(module: str) -> bool:
    """Return whether importing a module of the standard library, or the main module of a package, starts something."""
    return module.endswith(".__main__") or f"{module}.".startswith(tuple(f"{name}." for name in _RUN_ON_IMPORT))


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
