"""The loaded testbed base, once for all tests of searches."""

from tests.support.prompt_searches import split, tuned

__all__ = ["split", "tuned"]
