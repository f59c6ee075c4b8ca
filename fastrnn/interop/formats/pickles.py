"""A pickle read as data: numbers, strings and containers, and nothing that could act.

Python's unpickler imports what a pickle names and calls what it is told to call. Here a name is looked up among those
its reader admits and gives a function of the reader's own, or stands for an ``Opaque`` object, or the pickle is
refused. Nothing is imported, no attribute is set, nothing is hashed or compared. Memory follows the bytes read: every
length is held against what is there. The opcodes are Python's, as documented in its module pickletools, whose own
parser splits them here.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..._base.reading import ModelFormatError

if TYPE_CHECKING:
    from io import BytesIO

_OPEN_MARKS = 2000          # Python's own pickler stops at some 1000 levels of nesting
_SPARE = 1000               # allowed beyond what follows from the bytes read
_UNSET = object()           # in the memo


class Pairs(list[Any]):
    """A dict: its keys and values in turn."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Name:
    """What an admitted global stands for: a function that may be called, or a value, or just its name."""

    name: str
    call: Callable[..., Any] | None = None
    value: Any = None


class Opaque:
    """An object of a class that is not known here: what the pickle says of it, and nothing that could act.

    name: of its class, or of the function that was to make it; arguments: for these; state: its attributes, as a Pairs
    in general; pairs and items: what was put into it where it is a kind of dict or list.
    """

    __slots__ = ("name", "arguments", "state", "pairs", "items")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = None
        self.pairs: Pairs | None = None
        self.items: list[Any] | None = None

    def attribute(self, name: str) -> Any:
        """The value of an attribute; None where there is none."""
        if type(self.state) is not Pairs:
            return None
        return next((value for key, value in zip(self.state[::2], self.state[1::2])
                     if type(key) is str and key == name), None)


def opaque(name: str) -> Name:
    """The Name of a class or function that is not known: calling it gives an Opaque."""
    return Name(name, lambda *arguments: Opaque(name, arguments))


def shown(value: object) -> str:
    """A name or number out of a file, as much of it as a message can bear; of anything else its type."""
    if not isinstance(value, (str, bytes, int, float)):
        return f"a {type(value).__name__}"
    return value if isinstance(value, str) and value.isprintable() and len(value) <= 100 else ascii(value)[:100]


def load(file: BytesIO, find: Callable[[str], Name], persistent: Callable[[Any], Any] | None = None) -> Any:
    """Reads one pickle from a BytesIO, which stands behind it then.

    Parameters
    ----------
    file : BytesIO
    find : function of str
        Of a global's dotted name: its Name. It raises what is to be raised for names that are not admitted.
    persistent : function of one value, optional
        What stands for a persistent id; None: there are none.

    Returns
    -------
    object
        None, bool, int, float, str, bytes, bytearray, tuple, list (sets, too), Pairs, Name, Opaque, or what the
        functions gave. Containers may be shared, or hold themselves.

    Raises
    ------
    ModelFormatError, ValueError, ...
        To be called within ``files.refusing``.

    >>> import io, pickle
    >>> load(io.BytesIO(pickle.dumps({"a": [1, (2.5, None)]})), find=None)
    ['a', [1, (2.5, None)]]
    """
    machine, start = _Machine(find, persistent), file.tell()
    size = file.seek(0, 2)
    file.seek(start)
    for opcode, argument, position in pickletools.genops(file):
        machine.read = (position or 0) - start
        name = opcode.name
        if name in _LITERALS:
            machine.stack.append(argument)
        elif name in _ACTIONS:
            _ACTIONS[name](machine, argument)
        elif name == "FRAME":
            if (argument or 0) > size - file.tell():
                raise ModelFormatError(f"a pickle's frame of {argument} bytes, where {size - file.tell()} are left")
        elif name not in ("PROTO", "STOP"):
            raise ModelFormatError(f"pickle opcode {name} at byte {position} is of no use in data"
                                   + ("" if argument is None else f": {shown(argument)}"))
    return machine.pop()


class _Machine:
    """The stack, the heights at which marks stand on it, and the memo."""

    def __init__(self, find: Callable[[str], Name], persistent: Callable[[Any], Any] | None) -> None:
        self.find, self.persistent = find, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.read = 0                   # bytes of the pickle
        self.made = self.passed = 0     # containers and results; elements of arguments

    # ---- The stack

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ModelFormatError("a pickle takes more from its stack than is there")
        return self.stack[-1]

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def pop_marked(self) -> list[Any]:
        if not self.marks:
            raise ModelFormatError("a pickle goes back to a mark that is not there")
        at = self.marks.pop()
        items = self.stack[at:]
        del self.stack[at:]
        return items

    def make(self, value: Any) -> None:
        """A container of some 80 bytes, for which real pickles spend more than five."""
        self.made += 1
        if self.made > _SPARE + self.read // 5:
            raise ModelFormatError(f"{self.made} containers in {self.read} bytes of pickle")
        self.stack.append(value)

    # ---- Opcodes

    def mark(self, _: Any = None) -> None:
        if len(self.marks) == _OPEN_MARKS:
            raise ModelFormatError(f"a pickle nested more than {_OPEN_MARKS} deep")
        self.marks.append(len(self.stack))

    def drop(self, _: Any = None) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.make(tuple(reversed(items)))

    def extend(self, kind: type[list[Any]], items: Any) -> None:
        target: Any = self.top()
        if type(target) is Opaque:
            if kind is Pairs:
                target.pairs = Pairs() if target.pairs is None else target.pairs
                target = target.pairs
            else:
                target.items = [] if target.items is None else target.items
                target = target.items
        if type(target) is not kind:
            raise ModelFormatError(f"a pickle adds elements to a {type(target).__name__}")
        if kind is Pairs and len(items) % 2:
            raise ModelFormatError("a pickle adds a key without a value")
        target.extend(items)

    def set_item(self, _: Any = None) -> None:
        value = self.pop()
        key = self.pop()
        self.extend(Pairs, (key, value))

    def dict_of(self, _: Any = None) -> None:
        items = self.pop_marked()
        self.make(Pairs())
        self.extend(Pairs, items)

    def append(self, _: Any = None) -> None:
        value = self.pop()
        self.extend(list, (value,))

    def put(self, index: Any) -> None:
        index = len(self.memo) if index is None else index
        if not 0 <= index <= self.read:
            raise ModelFormatError(f"memo {index} in a pickle's first {self.read} bytes")
        self.memo.extend([_UNSET] * (index + 1 - len(self.memo)))
        self.memo[index] = self.top()

    def get(self, index: Any) -> None:
        if not 0 <= index < len(self.memo) or self.memo[index] is _UNSET:
            raise ModelFormatError(f"memo {index} of a pickle was never set")
        self.stack.append(self.memo[index])

    def text(self, argument: str) -> None:
        """A Python 2 string, which came byte by byte."""
        self.stack.append(argument.encode("latin-1").decode(errors="replace"))

    def name(self, argument: str) -> None:
        self.stack.append(self.find(argument.replace(" ", ".", 1)))

    def name_on_stack(self, _: Any = None) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise ModelFormatError("a pickle names a global by what is no text")
        self.stack.append(self.find(f"{module}.{name}"))

    def call_with_keywords(self, _: Any = None) -> None:
        """cls.__new__(cls, *arguments, **keywords), of Opaque objects alone."""
        keywords = self.pop()
        if type(keywords) is not Pairs:
            raise ModelFormatError(f"a pickle calls with a {type(keywords).__name__} of keywords")
        self.call(None)
        if keywords and type(self.top()) is not Opaque:
            raise ModelFormatError("a pickle calls with keywords what takes none")

    def call(self, _: Any = None) -> None:
        arguments, function = self.pop(), self.pop()
        if type(function) is Opaque:            # such as a method that a function like getattr was to give
            function = opaque(function.name)
        if type(function) is not Name or function.call is None:
            raise ModelFormatError("a pickle calls "
                                   + (function.name if type(function) is Name else f"a {type(function).__name__}"))
        if type(arguments) is not tuple:
            raise ModelFormatError(f"a pickle calls {function.name} with a {type(arguments).__name__} of arguments")
        # A function may copy its arguments: were one passed again and again, time and memory would have no bound.
        self.passed += sum(len(value) for value in arguments if isinstance(value, (str, bytes, tuple, list)))
        if self.passed > _SPARE + self.read:
            raise ModelFormatError(f"{self.passed} arguments in {self.read} bytes of pickle")
        try:
            result = function.call(*arguments)
        except TypeError as error:
            raise ModelFormatError(f"a pickle calls {function.name} with unsuitable arguments: {error}") from error
        self.make(result)

    def build(self, _: Any = None) -> None:
        """The attributes of a dict (a state_dict's versions) are passed over, those of an Opaque are kept."""
        state = self.pop()
        if type(self.top()) is Opaque:
            self.top().state = state
        elif type(self.top()) is not Pairs:
            raise ModelFormatError(f"a pickle sets attributes of a {type(self.top()).__name__}")

    def persist(self, _: Any = None) -> None:
        if self.persistent is None:
            raise ModelFormatError("a persistent id, where there can be none")
        identity = self.pop()
        self.make(self.persistent(identity))


_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "UNICODE",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
}
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "SHORT_BINSTRING": _Machine.text,
    "BINSTRING": _Machine.text,
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_LIST": lambda machine, _: machine.make([]),
    "EMPTY_SET": lambda machine, _: machine.make([]),
    "EMPTY_DICT": lambda machine, _: machine.make(Pairs()),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": lambda machine, _: machine.make(tuple(machine.pop_marked())),
    "LIST": lambda machine, _: machine.make(machine.pop_marked()),
    "FROZENSET": lambda machine, _: machine.make(machine.pop_marked()),
    "DICT": _Machine.dict_of,
    "APPEND": _Machine.append,
    "APPENDS": lambda machine, _: machine.extend(list, machine.pop_marked()),
    "ADDITEMS": lambda machine, _: machine.extend(list, machine.pop_marked()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.extend(Pairs, machine.pop_marked()),
    "MARK": _Machine.mark,
    "POP": _Machine.drop,
    "POP_MARK": lambda machine, _: machine.pop_marked(),
    "DUP": lambda machine, _: machine.stack.append(machine.top()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_on_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,        # cls.__new__(cls, *arguments)
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persist,
}
