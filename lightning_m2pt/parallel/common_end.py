"""One process of several that fails alone ends the others with it, in seconds, in its own words and with its code.

Whoever waits for a part of a gathering hears nothing of a process that has stopped before it: for half an hour on a
GPU, and for as long as that one holds its connections otherwise. So a process that fails says why in the store through
which PyTorch's processes have found each other, and a thread of every other one looks there.
"""

import contextlib
import itertools
import json
import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.distributed import DistError, PrefixStore, Store

from lightning_m2pt.errors import BadInputError, DivergedError, EnvironmentFailure, M2PTError

FAILED, TOLD = "failed", "told"
"""Keys of the store: why a process has failed, and which of the others know it."""
NUMBERS = itertools.count()
"""Of trainings in one process, which use one store; all processes count alike."""
LOOKS_SECONDS = 1.0
GRACE_SECONDS = 3.0
"""What a process has to come to its own end once it could know; then it is ended where it waits."""
GONE_SECONDS = 30.0
"""The same when the first process is gone, with the store: it may have ended well, and this one be about to."""
TOLD_SECONDS = 15.0
"""How long a process that has failed holds its connections for the others to hear of it."""
STORE_SECONDS = 5.0
OF_ANOTHERS_END = re.compile(r"gloo/|NCCL|Connection (?:closed|reset)|Broken pipe|Socket")
"""What PyTorch says in a process whose neighbour is gone."""
KINDS: dict[str, type[M2PTError]] = {kind.__name__: kind for kind in (BadInputError, DivergedError, EnvironmentFailure)}

Words = dict[str, str]


class CommonEnd:
    """Watches over the processes of a training; around what they do together, and told once they are connected."""

    def __init__(self) -> None:
        self._name = f"m2pt-common-end-{next(NUMBERS)}"
        self._original: Store | None = None
        self._is_over = threading.Event()

    def watch(self) -> None:
        """Looks from now on whether another process has failed; does nothing where there is none.

        To be called once PyTorch's process group exists. A process that the news finds in a wait that does not end is
        ended there, with the message and the exit code of the one that failed.
        """
        if number_of_processes() == 1 or self._original is not None:
            return
        self._original = default_store()
        store = own_connection(self._original, self._name)
        threading.Thread(target=self._look, args=(store,), name="common-end", daemon=True).start()

    @contextmanager
    def around(self, trainer: Trainer) -> Iterator[None]:
        """Lets what one process raises in the block end all of them.

        Raises:
            M2PTError: In a process that another one's end has stopped: what that one raised, or that it is gone.
        """
        try:
            yield
        except Exception as error:
            self._is_over.set()
            if number_of_processes() == 1:
                raise
            store = own_connection(self._original or default_store(), self._name)
            if not is_of_anothers_end(error):
                tell_the_others(store, words_of(error), trainer)
                raise
            found = said_in(store, STORE_SECONDS)
            tell(store)
            raise (error_of(found) if found else gone(str(error))) from error
        finally:
            self._is_over.set()

    def _look(self, store: Store) -> None:
        """Waits for news of another process, and ends this one if it does not end by itself."""
        while not self._is_over.wait(LOOKS_SECONDS):
            try:
                error = error_of(json.loads(store.get(FAILED))) if store.check([FAILED]) else None
                grace = GRACE_SECONDS
            except DistError:
                error, grace = gone(), GONE_SECONDS
            if error is None:
                continue
            if self._is_over.wait(grace):
                return
            if grace == GONE_SECONDS and answers(store):
                continue  # it was slow, or the network was: nobody is gone
            sys.stderr.write(error.message() + "\n")
            sys.stdout.flush()
            sys.stderr.flush()
            tell(store)
            # The main thread waits in PyTorch for what will never come, where no exception reaches it.
            os._exit(error.exit_code)


def number_of_processes() -> int:
    """Returns how many processes PyTorch has connected; 1 where none are."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def default_store() -> Store:
    """Returns the store through which the processes have found each other."""
    return torch.distributed.distributed_c10d._get_default_store()


def own_connection(store: Store, name: str) -> Store:
    """Returns another connection to a store, for keys under a name: whoever waits on the first connection holds it."""
    connection: Store = store.clone()  # type: ignore[attr-defined]  # not in its type stub
    connection.set_timeout(timedelta(seconds=STORE_SECONDS))
    return PrefixStore(name, connection)


def is_of_anothers_end(error: BaseException | None) -> bool:
    """Tells whether an error only says that another process is gone."""
    while error is not None:
        is_librarys = isinstance(error, RuntimeError) and not isinstance(error, M2PTError)
        if isinstance(error, DistError) or (is_librarys and OF_ANOTHERS_END.search(str(error))):
            return True
        error = error.__cause__
    return False


def words_of(error: Exception) -> Words:
    """Returns what an error says, as plain texts."""
    rank = {"rank": str(torch.distributed.get_rank()), "host": platform.node()}
    if isinstance(error, M2PTError):
        parts = {"what": error.what, "where": error.where, "expected": error.expected, "hint": error.hint}
        return {**rank, "kind": type(error).__name__, **parts}
    if isinstance(error, OSError):
        said = error.strerror or str(error)
        return {**rank, "kind": EnvironmentFailure.__name__, "what": said, "where": str(error.filename or "")}
    return {**rank, "kind": "", "what": f"{type(error).__name__}: {error}"[:200], "where": "", "hint": "see its output"}


def error_of(words: Words) -> M2PTError:
    """Returns the error of another process, which says whose it is."""
    parts: dict[str, Any] = {key: words[key] for key in ("expected", "hint") if key in words}
    place = f"rank {words['rank']} on {words['host']}"
    where = f"{place}: {words['where']}" if words["where"] else place
    return KINDS.get(words["kind"], M2PTError)(words["what"], where=where, **parts)


def answers(store: Store) -> bool:
    """Tells whether the first process, which holds the store, can be asked."""
    with contextlib.suppress(DistError):
        store.check([FAILED])
        return True
    return False


def gone(said: str = "") -> EnvironmentFailure:
    """Returns the error of a process that another one has left without a word.

    Args:
        said: What PyTorch says; NCCL says so, too, where no process was ever reached.
    """
    torchs = f" (torch: {' '.join(said.split())[:160]})" if said else ""
    return EnvironmentFailure(
        f"another process of this run is gone, without a word{torchs}",
        where=f"rank {torch.distributed.get_rank()} on {platform.node()}",
        expected=f"all {number_of_processes()} processes until the end",
        hint="it was killed, or its machine is gone: see its log and the kernel's (memory); the same command resumes",
    )


def said_in(store: Store, seconds: float) -> Words | None:
    """Returns why a process has failed, waiting for it; None if nothing is said, or the first process is gone."""
    until = time.monotonic() + seconds
    with contextlib.suppress(DistError):
        while time.monotonic() < until:
            if store.check([FAILED]):
                words: Words = json.loads(store.get(FAILED))
                return words
            time.sleep(0.1)
    return None


def tell(store: Store) -> None:
    """Says that this process knows that one has failed."""
    with contextlib.suppress(DistError):
        store.set(f"{TOLD}/{torch.distributed.get_rank()}", "1")


def tell_the_others(store: Store, words: Words, trainer: Trainer) -> None:
    """Says why this process fails, and stays until the others know; those that cannot hear it are killed.

    The first process holds the store. One that Lightning has started stays until the first is gone: Lightning kills
    that one as soon as a child of it has failed, before it could say anything.
    """
    ranks = range(number_of_processes())
    launcher = trainer.strategy.launcher
    starts_processes = isinstance(launcher, _SubprocessScriptLauncher) and isinstance(
        launcher.cluster_environment, LightningEnvironment
    )
    until = time.monotonic() + TOLD_SECONDS
    with contextlib.suppress(DistError):
        store.compare_set(FAILED, "", json.dumps(words))
        tell(store)
        while not store.check([f"{TOLD}/{rank}" for rank in ranks]) and time.monotonic() < until:
            time.sleep(0.1)
        while starts_processes and torch.distributed.get_rank() and time.monotonic() < until:
            store.check([FAILED])  # raises once the first process is gone
            time.sleep(0.1)
    if starts_processes and torch.distributed.get_rank() == 0 and isinstance(launcher, _SubprocessScriptLauncher):
        launcher.kill(signal.SIGKILL)
