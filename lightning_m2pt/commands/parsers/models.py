"""``m2pt models``: which models can be taken as a base, what one of them is, and fetching it."""

from lightning_m2pt.commands.parsers import models_fetch, models_list, models_show
from lightning_m2pt.system.console import VerbParser

COMMANDS = {
    "list": (models_list.argument_parser, "which models can be taken as a base"),
    "show": (models_show.argument_parser, "what a model is, what tuning it trains and takes, from its config.json"),
    "fetch": (models_fetch.argument_parser, "bring a model of the hub to this machine: safetensors and texts only"),
}


def argument_parser() -> VerbParser:
    """Returns the verb's flags: those of its commands."""
    parser = VerbParser(
        prog="m2pt models", description=__doc__, epilog="m2pt models NAME --help tells about one of them"
    )
    parser.add_commands("command", COMMANDS)
    return parser
