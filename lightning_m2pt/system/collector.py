"""Python's collector of unreachable cycles, held where it only costs: it walks over everything there is, again."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """Runs a block that makes many objects and hardly any cycles (imports, records) without the collector.

    What is there at the end is not looked at again: modules stay for the life of the process, and loader workers that
    are forked share their pages for longer.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.freeze()
            gc.enable()
