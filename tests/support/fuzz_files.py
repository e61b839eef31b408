"""Mutates files and reads them: every outcome must be success or an error of ours, soon and at little cost.

    python -m tests.support.fuzz_files --mutations 100000 --seed 0

One line is printed for everything else, with the seed of the mutation: `--only NUMBER` repeats it. Each mutation is a
function of seed and number alone. What an audit hook sees while a file is read (unpickled names, processes, sockets) is
counted, and so is what a read takes of memory.
"""

import argparse
import contextlib
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from lightning_m2pt.errors import M2PTError
from lightning_m2pt.visible_text import UNSAFE
from tests.support.fuzz_targets import Target, targets

HANG_SECONDS = 10
AUDITED = (
    *("pickle.find_class", "subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"),
    *("socket.connect", "socket.bind"),
)
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
WORDS = (
    *("\x1b[2J", "\u202e", "\x00", "\ud800", "\ufeff", "\u2028", "../../x", "/etc/passwd", "<image>", "", " ", "NaN"),
    *(
        "a" * 5_000,
        "1e999",
        "-1",
        "true",
        "\r\n",
        "=cmd()",
        "http://x.org/a",
        "C:\\x",
        "{question}",
        "[/bold]",
        "é" * 200,
    ),
)
VALUES = (
    *(None, True, False, 0, -1, 1.5, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf")),
    *([], {}, [[]], {"a": {}}, "x" * 100_000, *WORDS),
)
Mutator = Callable[[random.Random, bytes], bytes]


class HangError(BaseException):
    """A file that is not read in time."""


def flip(chance: random.Random, data: bytes) -> bytes:
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def put(chance: random.Random, data: bytes) -> bytes:
    """Writes a number that matters somewhere, in either byte order."""
    size = chance.choice((1, 2, 4, 8))
    number = chance.choice(NUMBERS) & (256**size - 1)
    start = chance.randrange(len(data))
    written = number.to_bytes(size, chance.choice(("little", "big")))
    return data[:start] + written + data[start + size :]


def cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def drop(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.choice((1, 2, 16, 200)) :]


def repeat(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(len(data))
    part = data[start : start + chance.choice((1, 8, 64))]
    return data[:start] + part * chance.choice((2, 3, 1_000)) + data[start:]


def insert(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(len(data) + 1)
    inserted = chance.choice((chance.randbytes(8), chance.choice(WORDS).encode("utf-8", "surrogatepass"), b"[" * 2_000))
    return data[:start] + inserted + data[start:]


def swap(chance: random.Random, data: bytes) -> bytes:
    """Writes one part of the file over another."""
    size = chance.choice((1, 4, 32))
    source, target = (chance.randrange(len(data)) for _ in range(2))
    return data[:target] + data[source : source + size] + data[target + size :]


def other(chance: random.Random, data: bytes) -> bytes:
    return chance.choice((b"", b"\0" * len(data), b"<html>", b"\xff\xfe", chance.randbytes(64), data + data))


def change_json(chance: random.Random, data: bytes) -> bytes:
    """Changes one value somewhere in JSON, in JSON lines or in the header of safetensors; else flips a bit."""
    before, text, after, is_header = b"", data, b"", False
    try:
        if data[:1] not in b"[{" and len(data) > 8:
            length = int.from_bytes(data[:8], "little")
            before, text, after, is_header = data[:8], data[8 : 8 + length], data[8 + length :], True
        lines = text.split(b"\n") if b"\n{" in text and text[:1] == b"{" else [text]
        number = chance.randrange(len(lines))
        tree = json.loads(lines[number])
    except (ValueError, IndexError):
        return flip(chance, data)
    lines[number] = json.dumps(changed(chance, tree)).encode()
    if chance.random() < 0.1:
        lines[number] = lines[number].replace(b"{", b'{"format": 1, "format": 2, ', 1)
    content = b"\n".join(lines)
    return (len(content).to_bytes(8, "little") if is_header else before) + content + after


def changed(chance: random.Random, tree: Any) -> Any:
    """Returns a JSON value in which one value, anywhere, is another one, gone, or deep."""
    if not isinstance(tree, dict | list) or not tree or chance.random() < 0.15:
        deep: Any = 1
        for _ in range(chance.choice((3, 90, 150))):
            deep = [deep] if chance.random() < 0.5 else {"a": deep}
        return chance.choice((*VALUES, deep))
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = chance.choice(keys)
    if chance.random() < 0.1:
        del tree[key]
    elif isinstance(tree, dict) and chance.random() < 0.1:
        tree[chance.choice(WORDS)] = tree.pop(key)
    else:
        tree[key] = changed(chance, tree[key])
    return tree


BYTES: tuple[Mutator, ...] = (flip, flip, put, put, cut, drop, repeat, insert, swap, other)


class Fuzzer:
    """Reads mutated files and counts what comes of it.

    Args:
        folder: A new folder for the files.
        seed: Decides all mutations.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.targets = targets(folder)
        self.seed = seed
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.audited: Counter[str] = Counter()
        self.slowest = (0.0, "")
        self.most_memory = (0, "")
        self.reading = False
        sys.addaudithook(self.hook)
        signal.signal(signal.SIGALRM, self.too_late)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.reading and event in AUDITED:
            self.audited[event] += 1

    def too_late(self, number: int, frame: FrameType | None) -> None:
        raise HangError

    def run(self, number: int) -> str:
        """Makes one mutation and returns what went wrong; empty if nothing did."""
        chance = random.Random(f"{self.seed}/{number}")
        target = self.targets[number % len(self.targets)]
        path = chance.choice(list(target.files))
        mutate = change_json if chance.random() < 0.5 and is_json(target.files[path]) else chance.choice(BYTES)
        path.write_bytes(mutate(chance, target.files[path]))
        if target.seal is not None:
            target.seal()
        try:
            problem = self.read(target, f"{number}: {target.name}: {path.name}: {mutate.__name__}")
        finally:
            path.write_bytes(target.files[path])
        return problem

    def read(self, target: Target, name: str) -> str:
        memory, start, problem = peak(), time.monotonic(), ""
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        self.reading = True
        try:
            target.read()
            outcome = "read"
        except M2PTError as error:
            outcome = "refused"
            lines = error.message().split("\n")
            if len(lines) > 3 or UNSAFE.search("".join(lines)):
                outcome, problem = "bad message", f"{name}: {error.message()!r}"
        except HangError:
            outcome, problem = "hang", f"{name}: HANG"
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            outcome = "crash"
            problem = f"{name}: {type(error).__name__}: {error!s:.100} at {last.filename}:{last.lineno}"
        finally:
            self.reading = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.outcomes[target.name, outcome] += 1
        self.slowest = max(self.slowest, (time.monotonic() - start, name))
        self.most_memory = max(self.most_memory, (peak() - memory, name))
        return problem

    def table(self) -> str:
        kinds = ("read", "refused", "bad message", "hang", "crash")
        lines = ["".join(f"{word:>13}" for word in ("", *kinds))]
        for name in dict.fromkeys(target.name for target in self.targets):
            lines.append(f"{name:<20}" + "".join(f"{self.outcomes[name, kind]:>12}" for kind in kinds))
        totals = [sum(count for (_, kind), count in self.outcomes.items() if kind == wanted) for wanted in kinds]
        lines.append(f"{'all':<20}" + "".join(f"{total:>12}" for total in totals))
        lines.append(f"audited while reading: {dict(self.audited) or 'nothing'}")
        lines.append(f"slowest: {self.slowest[0]:.2f} s ({self.slowest[1]})")
        lines.append(f"largest growth of memory: {self.most_memory[0] / 2**20:.0f} MiB ({self.most_memory[1]})")
        return "\n".join(lines)


def is_json(data: bytes) -> bool:
    return data[:1] in b"[{" or data[8:9] == b"{"


def peak() -> int:
    """Returns the most memory this process has had, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat one mutation, with its traceback")
    options = parser.parse_args(list(arguments))
    warnings.simplefilter("ignore")
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background processes ignore the first
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), options.seed)
        numbers = range(options.mutations) if options.only is None else [options.only]
        problems = 0
        with contextlib.suppress(KeyboardInterrupt):  # the table tells how many were made
            for number in numbers:
                problem = fuzzer.run(number)
                problems += bool(problem)
                if problem:
                    sys.stdout.write(problem + "\n")
                    sys.stdout.flush()
        sys.stdout.write(fuzzer.table() + "\n")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
