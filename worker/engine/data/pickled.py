"""Plain data out of a pickle, which is read here and never run.

A pickle is a program for a stack machine, and Python's own machine calls whatever the program names. This one follows
the opcodes that build numbers, text, bytes, lists, tuples and dicts; of calls it knows the few by which NumPy writes
arrays and numbers, and makes these itself. No name is ever looked up.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from worker.engine.errors import EngineError

MAX_OPCODES = 1_000_000  # the largest batch of CIFAR-100 has 300,000
_MAX_SIZE = 2**40  # of one dimension of an array
_MAX_DIMENSIONS = 8
_NUMBERS = frozenset({"b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"})
_WORD = 100  # characters shown of a name in a file


class UnreadablePickleError(Exception):
    """Bytes that are no pickle of plain data; the message says why."""


def read_pickle(content: bytes) -> object:
    """What the pickle describes. Text of Python 2 becomes str by Latin-1.

    Raises UnreadablePickleError where it is broken, and EngineError where it calls anything but NumPy's arrays.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count == MAX_OPCODES:
                raise UnreadablePickleError(f"it has more than {MAX_OPCODES:,} steps")
            machine.step(opcode.name, argument)
        return _settled(machine.top())
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        raise UnreadablePickleError(f"it is no sound pickle: {str(error)[:_WORD]}") from error


@dataclass(frozen=True)
class _Name:
    """Something that a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:_WORD]


@dataclass
class _NumberType:
    code: str
    order: str = "="

    def dtype(self) -> np.dtype:
        return np.dtype(self.order.replace("|", "=") + self.code)


@dataclass
class _Array:
    """An array, which a pickle makes empty first and fills later."""

    value: np.ndarray | None = None


_Call: TypeAlias = Callable[[tuple[Any, ...]], object]


class _Machine:
    """The stack, the values below the last marks, and the values that the pickle numbered."""

    def __init__(self) -> None:
        self._stack: list[object] = []
        self._below: list[list[object]] = []
        self._memo: dict[object, object] = {}

    def top(self) -> object:
        return self._stack[-1]

    def step(self, opcode: str, argument: object) -> None:
        if opcode in _PUSHES:
            self._stack.append(argument)
        elif opcode in _MAKES:
            self._stack.append(_MAKES[opcode]())
        elif opcode not in _IGNORED:
            step = _STEPS.get(opcode)
            if step is None:
                raise UnreadablePickleError(f"it has the step {opcode}, which plain data does not need")
            step(self, argument)

    def pop(self, count: int) -> list[object]:
        if len(self._stack) < count:
            raise UnreadablePickleError("it takes more values than there are")
        taken = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return taken

    def mark(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[object]:
        taken, self._stack = self._stack, self._below.pop()
        return taken

    def put(self, number: object) -> None:
        self._memo[number] = self.top()

    def memoize(self, _: object) -> None:
        self._memo[len(self._memo)] = self.top()

    def get(self, number: object) -> None:
        self._stack.append(self._memo[number])

    def group(self, values: list[object], kind: type) -> None:
        self._stack.append(kind(values))

    def extend(self, values: list[object]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise UnreadablePickleError("it appends to what is no list")
        target.extend(values)

    def assign(self, pairs: list[object]) -> None:
        target = self.top()
        if not isinstance(target, dict):
            raise UnreadablePickleError("it assigns to what is no dict")
        target.update(_pairs(pairs))

    def name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnreadablePickleError("it names what is no text")
        self._stack.append(_Name(module, name))

    def call(self, _: object) -> None:
        name, arguments = self.pop(2)
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise UnreadablePickleError("it calls what is no name")
        if name not in _CALLS:
            raise _refused(name)
        self._stack.append(_CALLS[name](arguments))

    def build(self, _: object) -> None:
        (state,) = self.pop(1)
        match self.top(), state:
            case _NumberType() as number, (_, str(order), *_):
                if order not in {"<", ">", "|", "="}:
                    raise UnreadablePickleError(f"it has numbers of the byte order {order[:_WORD]!r}")
                number.order = order
            case _Array() as array, (_, tuple(shape), _NumberType() as number, fortran, data):
                array.value = _array(shape, number, "F" if fortran else "C", data)
            case _:
                raise UnreadablePickleError("it fills what is no array")


_PUSHES = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_MAKES: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": _Machine.mark,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": lambda machine, _: machine.group(machine.since_mark(), tuple),
    "TUPLE1": lambda machine, _: machine.group(machine.pop(1), tuple),
    "TUPLE2": lambda machine, _: machine.group(machine.pop(2), tuple),
    "TUPLE3": lambda machine, _: machine.group(machine.pop(3), tuple),
    "LIST": lambda machine, _: machine.group(machine.since_mark(), list),
    "DICT": lambda machine, _: machine.group(list(_pairs(machine.since_mark()).items()), dict),
    "APPEND": lambda machine, _: machine.extend(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.assign(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.assign(machine.since_mark()),
    "GLOBAL": lambda machine, words: machine.name(*words.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.pop(2)),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}


def _pairs(values: list[object]) -> dict[str | int, object]:
    """Keys are text, bytes as Python 2 wrote text, or numbers."""
    found: dict[str | int, object] = {}
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, (str, bytes, int)):
            raise UnreadablePickleError("it has a dict by keys that are no text")
        found[key.decode("latin-1") if isinstance(key, bytes) else key] = value
    return found


def _number_type(arguments: tuple[Any, ...]) -> _NumberType:
    code = arguments[0]
    if not isinstance(code, str) or code.lstrip("<>|=") not in _NUMBERS:
        raise UnreadablePickleError("it has an array of something other than plain numbers")
    return _NumberType(code.lstrip("<>|="), code[0] if code[0] in "<>" else "=")


def _array(shape: tuple[Any, ...], number: object, order: object, data: object) -> np.ndarray:
    """An array of bytes that are there; NumPy's own pickles say all four of it."""
    content = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(number, _NumberType) or not isinstance(content, (bytes, bytearray)):
        raise UnreadablePickleError("it has an array without numbers")
    if len(shape) > _MAX_DIMENSIONS or not all(isinstance(size, int) and 0 <= size < _MAX_SIZE for size in shape):
        raise UnreadablePickleError("it has an array without a shape")
    dtype = number.dtype()
    if math.prod(shape) * dtype.itemsize != len(content):
        raise UnreadablePickleError(f"it has an array of {len(content):,} bytes for the shape {shape}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if order == "F" else "C")


def _empty_array(arguments: tuple[Any, ...]) -> _Array:
    if arguments[0] != _Name("numpy", "ndarray"):
        raise UnreadablePickleError("it has an array of a class that is not NumPy's own")
    return _Array()


def _array_of_buffer(arguments: tuple[Any, ...]) -> _Array:
    data, number, shape, order = arguments
    return _Array(_array(shape, number, order, data))


def _number(arguments: tuple[Any, ...]) -> object:
    number, data = arguments
    return _array((), number, "C", data).item()


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    text, encoding = arguments
    if encoding not in {"latin1", "latin-1"}:
        raise UnreadablePickleError("it has bytes in an encoding that pickles do not use")
    return bytes(text, "latin-1")


_CORES = ("numpy.core", "numpy._core")  # before and since NumPy 2
_CALLS: dict[_Name, _Call] = {
    _Name("numpy", "dtype"): _number_type,
    _Name("_codecs", "encode"): _encoded,
    **{_Name(f"{core}.multiarray", "_reconstruct"): _empty_array for core in _CORES},
    **{_Name(f"{core}.multiarray", "scalar"): _number for core in _CORES},
    **{_Name(f"{core}.numeric", "_frombuffer"): _array_of_buffer for core in _CORES},
}


def _settled(value: object) -> object:
    """The value, and in a dict the values, with arrays in place of what they were made from."""
    if isinstance(value, dict):
        return {key: part.value if isinstance(part, _Array) else part for key, part in value.items()}
    return value.value if isinstance(value, _Array) else value


def _refused(name: _Name) -> EngineError:
    return EngineError(
        "pickle_refused",
        f"A pickle in the archive calls {name}: it is a program and not data.",
        "Send the CIFAR archives as they are published, an npz of x and y, or one folder of images per class.",
    )
