"""``m2pt doctor``: what this machine has, and what does not fit together, each line with its remedy."""

from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the verb's flags: none."""
    return VerbParser(prog="m2pt doctor", description=__doc__)
