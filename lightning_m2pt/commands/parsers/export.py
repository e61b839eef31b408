"""``m2pt export``: write what other tools read (predictions, checkpoint, peft)."""

from lightning_m2pt.commands.parsers.export_forms import checkpoint, peft, predictions
from lightning_m2pt.system.console import VerbParser

COMMANDS = {
    "predictions": (predictions.argument_parser, "our answers, for a peer's own scorer"),
    "checkpoint": (checkpoint.argument_parser, "an adapter and its base, for M2PT's published code"),
    "peft": (peft.argument_parser, "prompts, prefixes, low-rank updates or norms, for PEFT alone"),
}


def argument_parser() -> VerbParser:
    """Returns the verb's flags: those of its commands."""
    parser = VerbParser(
        prog="m2pt export", description=__doc__, epilog="m2pt export NAME --help tells about one of them"
    )
    parser.add_commands("command", COMMANDS)
    return parser
