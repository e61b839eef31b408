"""Packages that shall not be found while another is imported, because of what that one would do with them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden_module(name: str) -> Iterator[None]:
    """Lets nobody find or import a package as long as this lasts, whether it is installed, or imported already.

    Args:
        name: The package's.
    """
    is_there, own = name in sys.modules, sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if is_there and own is not None:
            sys.modules[name] = own
