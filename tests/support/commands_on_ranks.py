"""A command on several ranks, as torchrun starts them: how each of them ends, and what it says."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_m2pt.main import main
from tests.support.ranks import RanksFailedError, on_ranks

Spoil = Callable[[int], object]


@dataclass(frozen=True)
class Ended:
    """How one rank has ended.

    Attributes:
        code: Its exit code.
        said: What it wrote on standard error.
    """

    code: int
    said: str


def command_on_ranks(
    number: int,
    words_of: Callable[[int], Sequence[str]],
    folder: Path,
    spoil: Spoil = lambda rank: None,
    timeout: float = 90,
) -> list[Ended]:
    """Runs a command on several ranks; returns how each of them has ended.

    Args:
        number: World size.
        words_of: The command of a rank.
        folder: Where ranks leave what they say; made here.
        spoil: Called in every rank before its command, with its number.
        timeout: Seconds for all of them.
    """
    folder.mkdir()

    def one_rank() -> None:
        rank = int(os.environ["RANK"])
        for stream, name in (("stdout", "out"), ("stderr", "err")):
            kept = open(folder / f"{rank}.{name}", "w", encoding="utf-8")  # noqa: SIM115  (until the process ends)
            os.dup2(kept.fileno(), 1 if stream == "stdout" else 2)
            setattr(sys, stream, kept)
        spoil(rank)
        (folder / f"{rank}.code").write_text(str(main(list(words_of(rank)))))
        sys.stderr.flush()

    ended: dict[int, int] = {}
    try:
        on_ranks(number, one_rank, timeout=timeout, environment={"XDG_CACHE_HOME": str(folder / "cache")})
    except RanksFailedError as error:
        for rank, reason in error.reasons.items():
            code = re.fullmatch(r"ended without a result, exit code (-?\d+)", reason)
            assert code is not None, f"rank {rank}: {reason}"
            ended[rank] = int(code.group(1))
    for rank in range(number):
        if rank not in ended:
            ended[rank] = int((folder / f"{rank}.code").read_text())
    return [Ended(ended[rank], (folder / f"{rank}.err").read_text()) for rank in range(number)]
