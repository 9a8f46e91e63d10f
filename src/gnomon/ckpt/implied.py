"""What the functions that a pickle calls would call in their turn: those that take a function or a class and use it.

`_rebuild_from_type` is that of PyTorch's `torch/_tensor.py`; others are those of Python's `copyreg`, `functools` and
`collections` and of NumPy's `random/_pickle.py` and `ma/core.py`. A function that is kept for later counts as called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gnomon.ckpt.inert import Call, Global, Pairs, as_pairs, attributes

_OBJECT = Global("builtins", "object")
_PARTIAL, _DEFAULTDICT = "functools.partial", "collections.defaultdict"


def implied_calls(call: Call) -> list[Call]:
    """Return the calls that `call` would make of what it was given; one without a name where that is not clear."""
    rule = _RULES.get(call.name)
    if rule is None or not call.arguments:
        return []
    return [Call(call, ())] if call.keywords is not None and call.name != _PARTIAL else rule(call)


def implied_by_state(target: Call) -> list[Call]:
    """Return the calls that an object would make of the functions that its state brings."""
    made = {target.name, *(inner.name for inner in implied_calls(target))}
    state = target.state
    if _PARTIAL in made:
        return _unpacked(*state[:3]) if isinstance(state, tuple) and len(state) > 1 else []
    if _DEFAULTDICT in made and "default_factory" in attributes(target):
        return _made_by(attributes(target)["default_factory"])
    return []


def _from_type(call: Call) -> list[Call]:
    """`_rebuild_from_type`: (function, type, arguments of the function, state)."""
    return _unpacked(call.arguments[0], call.arguments[2]) if len(call.arguments) > 2 else []


def _reconstructor(call: Call) -> list[Call]:
    """`_reconstructor`: (class, base, state), which calls `base.__new__` and `base.__init__` unless it is object."""
    made, *base = call.arguments[:2]
    by_base = [Call(item, call.arguments[2:]) for item in base if item != _OBJECT]
    return by_base if base == [made] else [*by_base, Call(made, ())]


def _first(call: Call) -> list[Call]:
    """`__newobj__` and `partial`: (class or function, its arguments ...)."""
    return [Call(call.arguments[0], call.arguments[1:], call.keywords)]


def _newobj_ex(call: Call) -> list[Call]:
    """`__newobj_ex__`: (class, arguments, keywords)."""
    return _unpacked(*call.arguments[:3]) if len(call.arguments) > 1 else []


def _defaultdict(call: Call) -> list[Call]:
    """`defaultdict`: (what makes values for missing keys, ...)."""
    return _made_by(call.arguments[0])


def _each_made(call: Call) -> list[Call]:
    """NumPy's constructors of random generators, arrays and seeds: (data or a function that makes it, ...)."""
    return [Call(item, ()) for item in call.arguments if isinstance(item, Global)]


def _made_by(factory: Any) -> list[Call]:
    """Return the call of a factory; a `partial` was looked at when it was made."""
    is_partial = isinstance(factory, Call) and factory.name == _PARTIAL
    return [] if factory is None or is_partial else [Call(factory, ())]


def _unpacked(function: Any, arguments: Any, keywords: Any = None) -> list[Call]:
    """Return `function(*arguments, **keywords)`; for arguments that are no tuple or list, a call without a name too."""
    if isinstance(arguments, tuple | list):
        pairs = as_pairs(keywords)
        return [Call(function, tuple(arguments), Pairs(pairs) if pairs else None)]
    return [Call(function, ()), Call(Call(arguments, ()), ())]


_RULES: dict[str, Callable[[Call], list[Call]]] = {
    "torch._tensor._rebuild_from_type": _from_type,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "copyreg._reconstructor": _reconstructor,
    "copyreg.__newobj__": _first,
    "copyreg.__newobj_ex__": _newobj_ex,
    _PARTIAL: _first,
    _DEFAULTDICT: _defaultdict,
    "numpy.ma.core._mareconstruct": _each_made,
    "numpy.random._pickle.__bit_generator_ctor": _each_made,
    "numpy.random._pickle.__generator_ctor": _each_made,
    "numpy.random._pickle.__randomstate_ctor": _each_made,
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence": _each_made,
}
