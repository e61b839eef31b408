"""``m2pt models list``: which models can be taken as a base."""

from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the command's flags."""
    return VerbParser(prog="m2pt models list", description=__doc__)
