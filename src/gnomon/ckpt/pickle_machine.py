"""Read a pickle without running it: the opcodes build records of what they would import and call.

Python's `pickletools` decodes the opcodes; here is the stack that they work on (the comments of `pickletools` define
each). No opcode of this machine imports, calls, compares or hashes anything that the file names.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from typing import Any, Protocol

from gnomon.ckpt.inert import Call, External, Global, Members, Pairs
from gnomon.ckpt.mentions import Mentions
from gnomon.ckpt.printing import shorten
from gnomon.errors import CheckpointError

MAX_PICKLE_BYTES = 256 * 2**20
MAX_OPCODES = 20_000_000  # about 2 GiB of records, and a minute, at worst: of a file of 20 MB or more


class Readable(Protocol):
    """What `pickletools` needs of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes."""
        ...

    def readline(self) -> bytes:
        """Return a line."""
        ...

    def tell(self) -> int:
        """Return the position."""
        ...


class PickleMachine:
    """Reads one or more pickles after each other; `mentions` keeps what they call and name.

    `externals` holds every reference to what is stored outside. Who reads the pickles that are saved inside it as bytes
    keeps book here: `num_tried` of the calls that load such bytes were looked at, `opened` holds the ids of those whose
    bytes could be read, and `budget_bytes` are left to read.
    """

    def __init__(self) -> None:
        self.mentions = Mentions()
        self.externals: list[External] = []
        self.opened: set[int] = set()
        self.num_tried = 0
        self.budget_bytes = MAX_PICKLE_BYTES
        self._left = MAX_OPCODES
        self._reset()

    def read(self, file: Readable) -> Any:
        """Return the object of the next pickle, as records; raise CheckpointError when it is damaged or too large."""
        self._reset()
        try:
            for opcode, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
                self._left -= 1
                if self._left < 0:
                    raise CheckpointError(f"Its pickle has more than {MAX_OPCODES} instructions, which gnomon refuses.")
                _EXECUTE.get(opcode.name, _push)(self, argument)
            return self._pop()
        except (ValueError, IndexError, OverflowError) as error:
            raise CheckpointError(f"Its pickle is damaged or cut off ({shorten(str(error))}).") from None

    def _reset(self) -> None:
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._protocol = 0

    # The stack

    def _pop(self) -> Any:
        if not self._stack:
            raise ValueError("it takes more from its stack than it put there")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            raise ValueError("it looks for something on an empty stack")
        return self._stack[-1]

    def _pop_mark(self) -> list[Any]:
        if not self._marked:
            raise ValueError("a mark is missing")
        items, self._stack = self._stack, self._marked.pop()
        return items

    def mark(self, _: Any) -> None:
        """MARK."""
        self._marked.append(self._stack)
        self._stack = []

    def pop(self, _: Any) -> None:
        """POP: of a mark, too."""
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def pop_mark(self, _: Any) -> None:
        """POP_MARK."""
        self._pop_mark()

    def dup(self, _: Any) -> None:
        """DUP."""
        self._stack.append(self._top())

    def push(self, value: Any) -> None:
        """Push a constant."""
        self._stack.append(value)

    def protocol(self, version: int) -> None:
        """PROTO."""
        self._protocol = version

    # The memo

    def put(self, index: int) -> None:
        """PUT, BINPUT, LONG_BINPUT."""
        self._memo[index] = self._top()

    def memoize(self, _: Any) -> None:
        """MEMOIZE."""
        self._memo[len(self._memo)] = self._top()

    def get(self, index: int) -> None:
        """GET, BINGET, LONG_BINGET."""
        if index not in self._memo:
            raise ValueError(f"it refers to object {index}, which it has not defined")
        self._stack.append(self._memo[index])

    # Containers

    def marked_list(self, _: Any) -> None:
        """LIST."""
        items = self._pop_mark()
        self._stack.append(items)

    def marked_tuple(self, _: Any) -> None:
        """TUPLE."""
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def short_tuple(self, size: int) -> None:
        """TUPLE1, TUPLE2, TUPLE3."""
        items = [self._pop() for _ in range(size)]
        self._stack.append(tuple(reversed(items)))

    def marked_dict(self, _: Any) -> None:
        """DICT."""
        items = self._pop_mark()
        self._stack.append(Pairs(_paired(items)))

    def frozenset(self, _: Any) -> None:
        """FROZENSET."""
        items = self._pop_mark()
        self._stack.append(Members(items))

    def append(self, _: Any) -> None:
        """APPEND."""
        item = self._pop()
        self._extend([item])

    def appends(self, _: Any) -> None:
        """APPENDS and ADDITEMS."""
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Members):
            target.items.extend(items)
        elif isinstance(target, Call):
            target.items = target.items or []
            target.items.extend(items)
        else:
            raise ValueError(f"it appends to a {type(target).__name__}")

    def setitem(self, _: Any) -> None:
        """SETITEM."""
        value, key = self._pop(), self._pop()
        self._update([(key, value)])

    def setitems(self, _: Any) -> None:
        """SETITEMS."""
        self._update(_paired(self._pop_mark()))

    def _update(self, pairs: list[tuple[Any, Any]]) -> None:
        target = self._top()
        if isinstance(target, Pairs):
            target.items.extend(pairs)
        elif isinstance(target, Call):
            target.pairs = target.pairs or []
            target.pairs.extend(pairs)
        else:
            raise ValueError(f"it sets items of a {type(target).__name__}")

    # Names, calls and references

    def name(self, text: str) -> None:
        """GLOBAL: `text` is the module and the name, with a space between."""
        module, _, name = text.partition(" ")
        self._stack.append(self._global(module, name))

    def stack_name(self, _: Any) -> None:
        """STACK_GLOBAL."""
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name is not text")
        self._stack.append(self._global(module, name))

    def extension(self, code: int) -> None:
        """EXT1, EXT2, EXT4: a name that only a registry of the program knows."""
        self._stack.append(self._mentioned(Global("copyreg", f"extension {code}")))

    def _global(self, module: str, name: str) -> Global:
        """Return the name; the protocols before 3 use those of Python 2."""
        if self._protocol < 3:
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            module = IMPORT_MAPPING.get(module, module)
        return self._mentioned(Global(module, name))

    def _mentioned(self, name: Global) -> Global:
        self.mentions.add_name(name)
        return name

    def reduce(self, _: Any) -> None:
        """REDUCE and NEWOBJ."""
        arguments, function = self._pop(), self._pop()
        self._call(function, arguments)

    def newobj_ex(self, _: Any) -> None:
        """NEWOBJ_EX."""
        keywords, arguments, function = self._pop(), self._pop(), self._pop()
        self._call(function, arguments, keywords if isinstance(keywords, Pairs) else None)

    def obj(self, _: Any) -> None:
        """OBJ."""
        items = self._pop_mark()
        self._call(items[0], tuple(items[1:]))

    def inst(self, text: str) -> None:
        """INST."""
        arguments = tuple(self._pop_mark())
        self.name(text)
        self._call(self._pop(), arguments)

    def _call(self, function: Any, arguments: Any, keywords: Pairs | None = None) -> None:
        if not isinstance(arguments, tuple):
            raise ValueError("the arguments of a call are not a tuple")
        if _is_getattr(function, arguments):
            member = Global(arguments[0].module, f"{arguments[0].name}.{arguments[1]}")
            self._stack.append(self._mentioned(member))
            return
        call = Call(function, arguments, keywords)
        self.mentions.add_call(call)
        self._stack.append(call)

    def build(self, _: Any) -> None:
        """BUILD."""
        state, target = self._pop(), self._top()
        if not isinstance(target, Call):
            raise ValueError(f"it sets the state of a {type(target).__name__}")
        target.state = state
        self.mentions.add_state(target)

    def external(self, _: Any) -> None:
        """BINPERSID."""
        self.persistent(self._pop())

    def persistent(self, identity: Any) -> None:
        """PERSID."""
        self.externals.append(External(identity))
        self._stack.append(self.externals[-1])

    def nothing(self, _: Any) -> None:
        """FRAME, STOP, READONLY_BUFFER."""

    def buffer(self, _: Any) -> None:
        """NEXT_BUFFER."""
        raise ValueError("its data lies outside the file")


def _is_getattr(function: Any, arguments: tuple[Any, ...]) -> bool:
    """Return whether this is `getattr(module.Class, 'name')`, as which members of classes are pickled."""
    if function != Global("builtins", "getattr") or len(arguments) != 2:
        return False
    return isinstance(arguments[0], Global) and isinstance(arguments[1], str)


def _paired(items: list[Any]) -> list[tuple[Any, Any]]:
    if len(items) % 2:
        raise ValueError("a key has no value")
    return list(zip(items[::2], items[1::2], strict=True))


def _push(machine: PickleMachine, argument: Any) -> None:
    machine.push(argument)


_EXECUTE: dict[str, Callable[[PickleMachine, Any], None]] = {
    **dict.fromkeys(("FRAME", "STOP", "READONLY_BUFFER"), PickleMachine.nothing),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), PickleMachine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), PickleMachine.get),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), PickleMachine.extension),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), PickleMachine.reduce),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), PickleMachine.appends),
    "PROTO": PickleMachine.protocol,
    "NEXT_BUFFER": PickleMachine.buffer,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push(Pairs()),
    "EMPTY_SET": lambda machine, _: machine.push(Members()),
    "PERSID": PickleMachine.persistent,
    "BINPERSID": PickleMachine.external,
    "MARK": PickleMachine.mark,
    "POP": PickleMachine.pop,
    "POP_MARK": PickleMachine.pop_mark,
    "DUP": PickleMachine.dup,
    "MEMOIZE": PickleMachine.memoize,
    "LIST": PickleMachine.marked_list,
    "TUPLE": PickleMachine.marked_tuple,
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "DICT": PickleMachine.marked_dict,
    "FROZENSET": PickleMachine.frozenset,
    "APPEND": PickleMachine.append,
    "SETITEM": PickleMachine.setitem,
    "SETITEMS": PickleMachine.setitems,
    "GLOBAL": PickleMachine.name,
    "STACK_GLOBAL": PickleMachine.stack_name,
    "NEWOBJ_EX": PickleMachine.newobj_ex,
    "OBJ": PickleMachine.obj,
    "INST": PickleMachine.inst,
    "BUILD": PickleMachine.build,
}
"""What each opcode does; all others push their argument."""
