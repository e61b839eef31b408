"""Reads and writes CIFAR's pickled batches without ever running what a pickle names.

The published files were pickled by Python 2 (protocol 2). A pickle may name any function and have it called while
it is read; here every name but those that a pickled array needs is refused, and for those there are stand-ins that
only note what they were given. numpy's own unpickling code is never reached. What the instructions may cost is known
before the first is followed (``pickle_scan``), and what is copied meanwhile is no longer than the file.
"""

import mmap
import pickle
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.pickle_scan import check_instructions

BatchValue: TypeAlias = str | bytes | int | float | bool | list[Any] | numpy.ndarray | None
"""What a batch's dictionary may hold; lists hold texts, bytes and numbers only."""

WritableValue: TypeAlias = str | int | Sequence[str] | Sequence[int] | numpy.ndarray
"""What ``python2_pickle`` can write: ASCII texts, whole numbers below 2**31, lists of them, uint8 arrays."""

DTYPES = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"}
SHORT_TEXT = 256
SHORT_INTEGER = 256


class CopiedBytes:
    """Counts the bytes that are copied while a file is read: a few instructions can ask for the same ones often.

    Args:
        most: Limit: the file's length.
    """

    def __init__(self, most: int) -> None:
        self.left = most

    def add(self, size: int) -> None:
        """Adds what is to be copied.

        Raises:
            pickle.UnpicklingError: If that is more than the file holds.
        """
        self.left -= size
        if self.left < 0:
            raise pickle.UnpicklingError("it asks for more bytes than it holds")


class PickledDtype:
    """What a pickled ``numpy.dtype`` says: its code, such as ``u1``, and its byte order."""

    __slots__ = ("byte_order", "code")

    def __init__(self, code: str) -> None:
        if code not in DTYPES:
            raise pickle.UnpicklingError(f"an array of type {code!r:.20} is not allowed")
        self.code = code
        self.byte_order = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Notes the byte order of numpy's (version, byte order, ...)."""
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("an array with an unknown byte order")
        self.byte_order = state[1]


class PickledArray:
    """What a pickled array says: shape, type and bytes."""

    __slots__ = ("dtype", "fortran_order", "raw", "shape")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.dtype = PickledDtype("u1")
        self.fortran_order = False
        self.raw: str | bytes | bytearray = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Takes numpy's (version, shape, dtype, Fortran order, bytes); Python 2's bytes arrive as Latin-1 text."""
        _, shape, dtype, fortran_order, raw = state
        if not (isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)):
            raise pickle.UnpicklingError("an array with an impossible shape")
        if not isinstance(dtype, PickledDtype):
            raise pickle.UnpicklingError("an array without a type")
        if not isinstance(raw, str | bytes | bytearray):
            raise pickle.UnpicklingError("an array without values")
        self.shape, self.dtype, self.fortran_order, self.raw = shape, dtype, fortran_order is True, raw

    def array(self, copied: CopiedBytes) -> numpy.ndarray:
        """Returns the array; of values that arrive as bytes it is a view."""
        raw = self.raw
        if isinstance(raw, str):
            copied.add(len(raw))
            raw = raw.encode("latin-1")
        dtype = numpy.dtype(self.dtype.byte_order.replace("|", "=") + self.dtype.code)
        order: Any = "F" if self.fortran_order else "C"
        return numpy.frombuffer(raw, dtype=dtype).reshape(self.shape, order=order)


class NamedInPickle:
    """Stands for a class or function that the pickle names; calling it notes, and runs nothing.

    An instance without ``__dict__``, so a pickle's "build" instruction can change nothing in it.
    """

    __slots__ = ("_copied", "_name")

    def __init__(self, name: str, copied: CopiedBytes) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_copied", copied)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuses any change."""
        raise AttributeError(f"{name} cannot be set")

    def __call__(self, *arguments: object) -> object:
        """Returns the stand-in for what the named thing would build."""
        match self._name, arguments:  # type: ignore[attr-defined]
            case "_reconstruct", (NamedInPickle(), tuple(), str() | bytes()):
                return PickledArray()
            case "dtype", (str(code), *_):
                return PickledDtype(code)
            case "_frombuffer", (
                bytes() | bytearray() as raw,
                PickledDtype() as dtype,
                tuple(shape),
                "C" | "F" as order,
            ):
                array = PickledArray()
                array.__setstate__((1, shape, dtype, order == "F", raw))
                return array
            case "encode", (str(text), "latin1" | "latin-1"):
                self._copied.add(len(text))  # type: ignore[attr-defined]
                return text.encode("latin-1")
        raise pickle.UnpicklingError(f"{self._name!r} is called in an unexpected way")  # type: ignore[attr-defined]


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows the names in a pickled array and refuses all others.

    Args:
        content: The pickle, looked through already.
        copied: Limits what is copied.
    """

    def __init__(self, content: mmap.mmap, copied: CopiedBytes) -> None:
        super().__init__(content, encoding="latin1")
        self.copied = copied

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.numeric", "_frombuffer"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module_name: str, global_name: str) -> object:
        """Returns a stand-in for an allowed name.

        Raises:
            pickle.UnpicklingError: For any other name; it is neither imported nor called.
        """
        if (module_name, global_name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which is not allowed")
        return NamedInPickle(global_name, self.copied)


def read_batch(path: Path) -> dict[str, BatchValue]:
    """Returns the dictionary in one of CIFAR's pickled files, with texts as keys.

    Raises:
        BadInputError: If the file is missing, truncated, names anything but arrays, or holds anything but a
            dictionary of texts, numbers, arrays, and lists of texts and numbers.
    """
    if not path.is_file():
        raise BadInputError("the file does not exist", where=str(path), expected="a pickled CIFAR batch")
    try:
        if path.stat().st_size == 0:
            raise pickle.UnpicklingError("it is empty")
        # Mapped, so that the file is not held twice.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            check_instructions(content)
            copied = CopiedBytes(len(content))
            return plain_dictionary(RestrictedUnpickler(content, copied).load(), copied)
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        ArithmeticError,
        MemoryError,
        RecursionError,
    ) as error:
        raise BadInputError(
            f"cannot be read as a CIFAR batch: {error}" if str(error) else "cannot be read as a CIFAR batch",
            where=str(path),
            expected="the pickled file of the official archive, complete",
            hint="unpack the official archive again",
        ) from error


def plain_dictionary(content: object, copied: CopiedBytes) -> dict[str, BatchValue]:
    """Returns what was unpickled with arrays in place of stand-ins.

    Args:
        content: What was unpickled.
        copied: Limits the bytes of all arrays together.

    Raises:
        pickle.UnpicklingError: If it is not a dictionary of texts, numbers, arrays, and flat lists.
    """
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f"it holds a {type(content).__name__} in place of a dictionary")
    plain: dict[str, BatchValue] = {}
    scalars = (str, bytes, int, float, bool, type(None))
    for key, value in content.items():
        name = key.decode("latin-1") if isinstance(key, bytes) else key
        if not isinstance(name, str):
            raise pickle.UnpicklingError("a key is not a text")
        if isinstance(value, PickledArray):
            plain[name] = value.array(copied)
        elif isinstance(value, scalars) or (isinstance(value, list) and all(isinstance(x, scalars) for x in value)):
            plain[name] = value
        else:
            raise pickle.UnpicklingError(f"{name!r:.40} holds a {type(value).__name__}")
    return plain


def python2_pickle(content: Mapping[str, WritableValue]) -> bytes:
    """Returns a dictionary pickled as Python 2 with protocol 2 wrote it (byte strings, ``numpy.core`` names)."""
    parts = [pickle.PROTO, b"\x02", pickle.EMPTY_DICT]
    for key, value in content.items():
        parts += [pickled_value(key), pickled_value(value), pickle.SETITEM]
    return b"".join([*parts, pickle.STOP])


def pickled_value(value: WritableValue) -> bytes:
    """Returns the protocol 2 instructions that build one value."""
    if isinstance(value, str):
        return pickled_bytes(value.encode("ascii"))
    if isinstance(value, int | numpy.integer):
        number = int(value)
        if 0 <= number < SHORT_INTEGER:
            return pickle.BININT1 + bytes([number])
        return pickle.BININT + struct.pack("<i", number)
    if isinstance(value, numpy.ndarray):
        return pickled_array(value)
    return b"".join([pickle.EMPTY_LIST, pickle.MARK, *map(pickled_value, value), pickle.APPENDS])


def pickled_bytes(value: bytes) -> bytes:
    """Returns the instructions that build a Python 2 ``str``."""
    if len(value) < SHORT_TEXT:
        return pickle.SHORT_BINSTRING + bytes([len(value)]) + value
    return pickle.BINSTRING + struct.pack("<i", len(value)) + value


def pickled_array(array: numpy.ndarray) -> bytes:
    """Returns the instructions that build a uint8 array as numpy's own ``__reduce__`` lays them out."""
    dtype = [
        *(b"cnumpy\ndtype\n", pickled_value("u1"), pickled_value(0), pickled_value(1), pickle.TUPLE3, pickle.REDUCE),
        *(pickle.MARK, pickled_value(3), pickled_value("|"), pickle.NONE * 3, pickled_value(-1) * 2, pickled_value(0)),
        *(pickle.TUPLE, pickle.BUILD),
    ]
    empty = [
        *(b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", pickled_value(0), pickle.TUPLE1),
        *(pickled_value("b"), pickle.TUPLE3, pickle.REDUCE),
    ]
    shape = [pickle.MARK, *map(pickled_value, array.shape), pickle.TUPLE]
    raw = pickled_bytes(array.astype(numpy.uint8).tobytes())
    return b"".join(
        [*empty, pickle.MARK, pickled_value(1), *shape, *dtype, pickle.NEWFALSE, raw, pickle.TUPLE, pickle.BUILD]
    )
