"""Numbers of things as flags take them; argparse names the flag beside what is wrong."""

import argparse


def whole_number(text: str) -> int:
    """Returns a number of 0 or more.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    return at_least(0, text)


def positive(text: str) -> int:
    """Returns a number of 1 or more.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    return at_least(1, text)


def at_least(least: int, text: str) -> int:
    """Returns a number of digits alone, neither signs nor spaces, that is not too small.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no number of at least {least}")
    return int(text)
