"""What a pickle's instructions may cost is known before one of them is followed."""

import pickle
import pickletools
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from data_modules.reading.restricted_pickle import python2_pickle, read_batch
from lightning_m2pt.errors import BadInputError

PROTO = b"\x80\x02"
LARGE = 2**30 - 1
TEXT_OF_1_MB = b"T" + struct.pack("<i", 2**20) + b"x" * 2**20
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
DTYPE = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"

COSTLY = {
    "memo index": PROTO + b"}r" + struct.pack("<I", LARGE) + b".",
    "memo index as text": PROTO + b"}p" + str(LARGE).encode() + b"\n.",
    "memo index read": PROTO + b"j" + struct.pack("<I", LARGE) + b".",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.",
    "frame of half the address space": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"}.",
    "text that is not there": PROTO + b"T" + struct.pack("<i", LARGE) + b"x.",
    "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "byte array that is not there": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "negative length": PROTO + b"T" + struct.pack("<i", -1) + b"x.",
    "whole number of a megabyte": PROTO + b"}U\x01a\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b"s.",
    "whole number of digits": PROTO + b"}U\x01aI" + b"9" * 100_000 + b"\ns.",
    "endless tuple": PROTO + b"(" + b"K\x01" * 2_000 + b"t.",
    "shape beyond everything": PROTO
    + b"}U\x04data"
    + ARRAY
    + b"(K\x01J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"
    + DTYPE
    + b"\x89U\x01atbs.",
    "array of a name": PROTO + b"}U\x04data" + ARRAY + b"(K\x01K\x01\x85" + DTYPE + b"\x89cnumpy\nndarray\ntbs.",
    "values asked for often": PROTO
    + TEXT_OF_1_MB
    + b"q\x000}("
    + b"".join(
        b"U\x02" + struct.pack("<H", number) + ARRAY + b"(K\x01J\x00\x00\x10\x00\x85" + DTYPE + b"\x89h\x00tb"
        for number in range(300)
    )
    + b"u.",
    "text encoded often": PROTO
    + TEXT_OF_1_MB
    + b"q\x000}("
    + b"".join(
        b"U\x02" + struct.pack("<H", number) + b"c_codecs\nencode\nh\x00U\x06latin1\x86R" for number in range(300)
    )
    + b"u.",
    "a set": b"\x80\x04}\x8f.",
    "an object": PROTO + b"cnumpy\nndarray\n)\x81.",
    "a state for a dictionary": PROTO + b"}}U\x01aK\x01sb.",
    "nothing": b"",
    "no end": PROTO + b"}",
    "unknown instruction": PROTO + b"\xff.",
    "endless name": PROTO + b"c" + b"a" * 10_000,
}


def peak_of(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", COSTLY)
def test_costly_pickles_are_refused_at_no_cost(tmp_path: Path, name: str) -> None:
    path = tmp_path / "batch"
    path.write_bytes(COSTLY[name])

    def refused() -> None:
        with pytest.raises(BadInputError, match="cannot be read as a CIFAR batch"):
            read_batch(path)

    refused()  # once before: what is imported on the way is no cost of the file's
    # 56 bytes are an empty list, which one instruction makes; a megabyte is pytest's own.
    assert peak_of(refused) < 2**20 + 2 * len(COSTLY[name]) + 56 * 5_000


@pytest.mark.parametrize("writer", [python2_pickle, lambda batch: pickle.dumps(batch, protocol=5)])
def test_a_batch_takes_no_more_than_twice_its_file(tmp_path: Path, writer: Callable[[dict], bytes]) -> None:
    batch = {"data": numpy.zeros((1_000, 3_072), numpy.uint8), "labels": [1] * 1_000, "filenames": ["a.png"] * 1_000}
    (tmp_path / "batch").write_bytes(writer(batch))
    size = (tmp_path / "batch").stat().st_size
    read_batch(tmp_path / "batch")
    assert peak_of(lambda: read_batch(tmp_path / "batch")) < 2.2 * size


def test_every_cut_of_a_batch_is_refused(tmp_path: Path) -> None:
    content = python2_pickle({"data": numpy.zeros((2, 12), numpy.uint8), "labels": [0, 300], "name": "x" * 300})
    for length in range(len(content)):
        (tmp_path / "batch").write_bytes(content[:length])
        with pytest.raises(BadInputError):
            read_batch(tmp_path / "batch")


def test_the_memo_of_a_long_batch_is_read(tmp_path: Path) -> None:
    """Python's own writer uses all three ways to store, and an index beyond 255."""
    names = [f"a{number}.png" for number in range(400)]
    for protocol in (2, 4):
        content = pickle.dumps({"filenames": [*names, *names]}, protocol=protocol)
        assert {"LONG_BINPUT", "MEMOIZE"} & {info.name for info, _, _ in pickletools.genops(content)}
        (tmp_path / "batch").write_bytes(content)
        assert read_batch(tmp_path / "batch") == {"filenames": [*names, *names]}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_batch_that_python_3_wrote_is_read(tmp_path: Path, protocol: int) -> None:
    pixels = numpy.random.default_rng(0).integers(0, 256, (20, 3_072), dtype=numpy.uint8)
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": pixels, "labels": [1] * 20}, protocol))
    read = read_batch(tmp_path / "batch")
    assert isinstance(read["data"], numpy.ndarray)
    assert numpy.array_equal(read["data"], pixels)
