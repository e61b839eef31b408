"""Python's collector of unreachable cycles, held where it only costs: it walks over everything there is, again."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector(*, freeze: bool = True) -> Iterator[None]:
    """Runs a block that makes many objects and hardly any cycles (imports, records) without the collector.

    Args:
        freeze: What is there at the end is not looked at again: modules stay for the life of the process, and loader
            workers that are forked share their pages for longer. False where models may be there that go later.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if freeze:
                gc.freeze()
            gc.enable()
