"""Looks through a pickle's instructions before any of them is followed.

Following them can cost more than the file is worth: an index into the memo takes nine bytes and sixteen gigabytes, the
length of a text that is not there as much memory as it says. Here every instruction must be one that flat dictionaries
of texts, numbers and arrays need, and every length and index one that the file can stand for.
"""

import pickletools
import struct
from collections.abc import Set as AbstractSet
from mmap import mmap
from pickle import UnpicklingError

MOST_INSTRUCTIONS = 4_000_000
"""The largest file of the sets read here, CIFAR-100's training part, has about 400,000."""
LONGEST_NAME = 256

ALLOWED = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK"),
        *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINFLOAT"),
        *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
    )
)
"""What Python 2 and 3 write for such dictionaries with protocols 2 to 5. Whole numbers have at most 32 bits: longer
ones can be chosen so that a dictionary takes hours."""
INSTRUCTIONS = {ord(info.code): info for info in pickletools.opcodes}
LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: struct.Struct("<B"),
    pickletools.TAKEN_FROM_ARGUMENT4: struct.Struct("<i"),
    pickletools.TAKEN_FROM_ARGUMENT4U: struct.Struct("<I"),
    pickletools.TAKEN_FROM_ARGUMENT8U: struct.Struct("<Q"),
}
"""How the length of what follows an instruction is written."""
FRAME_LENGTH = struct.Struct("<Q")
MEMO_INDEX = struct.Struct("<I")


def check_instructions(content: bytes | mmap, also: AbstractSet[str] = frozenset()) -> None:
    """Refuses a pickle that must not be followed; follows nothing and copies nothing.

    Args:
        content: The pickle.
        also: Names of instructions without a text or length of their own that are allowed besides.

    Raises:
        UnpicklingError: If it ends too early, has an instruction that is not needed here, an index that no earlier
            instruction can have filled, a length beyond its end, or too many instructions.
    """
    position = stored = 0
    for _ in range(MOST_INSTRUCTIONS):
        if position >= len(content):
            raise UnpicklingError("it is cut off")
        info = INSTRUCTIONS.get(content[position])
        if info is None or info.name not in ALLOWED | also:
            name = repr(content[position : position + 1]) if info is None else info.name
            raise UnpicklingError(f"its instruction {name} at byte {position} is not allowed")
        end = end_of_instruction(content, position, info)
        if end > len(content):
            raise UnpicklingError(f"its instruction {info.name} at byte {position} reaches beyond the end of the file")
        if info.name == "STOP":
            return
        if info.name in {"BINPUT", "LONG_BINPUT", "MEMOIZE"}:
            stored += 1  # Python 2 counts from 1, Python 3 from 0
        if info.name == "LONG_BINPUT" and MEMO_INDEX.unpack_from(content, position + 1)[0] > stored:
            raise UnpicklingError(f"its instruction LONG_BINPUT at byte {position} leaves places in the memo empty")
        if info.name == "FRAME" and FRAME_LENGTH.unpack_from(content, position + 1)[0] > len(content) - end:
            raise UnpicklingError(f"its instruction FRAME at byte {position} reaches beyond the end of the file")
        position = end
    raise UnpicklingError(f"it has more than {MOST_INSTRUCTIONS:,} instructions")


def end_of_instruction(content: bytes | mmap, position: int, info: pickletools.OpcodeInfo) -> int:
    """Returns where the next instruction begins; beyond the end where the file is cut off.

    Raises:
        UnpicklingError: If a length is negative, or a name too long.
    """
    begin = position + 1
    if info.arg is None:
        return begin
    if info.arg.n >= 0:
        return begin + info.arg.n
    if info.arg.n == pickletools.UP_TO_NEWLINE:  # of the allowed ones only GLOBAL: two lines, module and name
        module_end = content.find(b"\n", begin, begin + LONGEST_NAME)
        name_end = content.find(b"\n", module_end + 1, module_end + 1 + LONGEST_NAME)
        if module_end < 0 or name_end < 0:
            raise UnpicklingError(f"its instruction {info.name} at byte {position} names nothing")
        return name_end + 1
    length = LENGTHS[info.arg.n]
    if begin + length.size > len(content):
        return begin + length.size
    following: int = length.unpack_from(content, begin)[0]
    if following < 0:
        raise UnpicklingError(f"its instruction {info.name} at byte {position} has a negative length")
    return begin + length.size + following
