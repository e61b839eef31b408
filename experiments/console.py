"""Where people read: one console on standard output."""

import os
import sys

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120
"""A log file has no width; tables need one."""

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")

OUT = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


def is_main_process() -> bool:
    """Tells whether this is the process that writes and talks, before any process group exists."""
    return not any(int(os.environ.get(name, "0")) for name in RANK_VARIABLES)


def say(text: str) -> None:
    """Writes one line for a person, once however many processes there are."""
    if is_main_process():
        OUT.print(text, markup=False)
