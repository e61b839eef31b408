"""Claims of the contracts: what does not hold is an ``AssertionError`` with a sentence, under pytest and without it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from lightning_m2pt.errors import BadInputError, DivergedError


def claim(holds: bool, sentence: str) -> None:
    """States something about a class.

    Raises:
        AssertionError: With the sentence, if it does not hold.
    """
    if not holds:
        raise AssertionError(sentence)


def claim_refused(call: Callable[[], object], sentence: str) -> None:
    """States that a call ends in a ``BadInputError``.

    Raises:
        AssertionError: If it does not.
    """
    try:
        call()
    except BadInputError:
        return
    except Exception as error:
        raise AssertionError(f"{sentence}: it ends in {type(error).__name__}: {error}") from error
    raise AssertionError(sentence)


@contextmanager
def claim_accepted(sentence: str) -> Iterator[None]:
    """States that what is done inside neither is refused nor breaks.

    Raises:
        AssertionError: With the sentence and what was raised.
    """
    try:
        yield
    except (BadInputError, DivergedError) as error:
        raise AssertionError(f"{sentence}: {error}") from error
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{sentence}: {type(error).__name__}: {error}") from error


def size_of_difference(found: Tensor, expected: Tensor) -> float:
    """Returns the largest difference as a share of the largest expected number; infinite for other shapes or NaN."""
    if found.shape != expected.shape:
        return float("inf")
    found, expected = found.detach().double(), expected.detach().double()
    size = float((found - expected).abs().max()) / max(float(expected.abs().max()), 1e-12)
    return size if size == size else float("inf")


def claim_close(found: Tensor, expected: Tensor, limit: float, sentence: str) -> None:
    """States that two tensors are the same up to rounding.

    Args:
        found: What a class gives.
        expected: What it has to be.
        limit: The largest difference, as a share of the largest expected number.
        sentence: What is broken if it is larger.

    Raises:
        AssertionError: With the sentence and the difference.
    """
    size = size_of_difference(found, expected)
    claim(size <= limit, f"{sentence}: it differs by {size:.2g} of the numbers' size (at most {limit:g})")
