"""Where people read: one console on standard output, one for tables."""

from rich.console import Console

OUT = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Writes one line for a person."""
    OUT.print(text, markup=False)
