"""``m2pt export peft``: a tuned model as a folder that PEFT loads, without this project.

Textual prompts of every layer become a prefix (PREFIX_TUNING): their keys and values, computed once by the frozen
layers. So do the keys and values of prefix tuning. Rows in front of the first layer alone are a prompt (PROMPT_TUNING),
low-rank updates LORA, norms LN_TUNING; a tuned projector and a head go with them (modules_to_save). PEFT has no form
for prompts of a vision tower: what it cannot carry is named before anything is written, and ``--leave-out PART`` writes
the rest. The card says so, and visual prompts that were left out lie beside the adapter as safetensors.
"""

import argparse

from lightning_m2pt.commands.parsers.tuned import add_source
from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the command's flags."""
    parser = VerbParser(
        prog="m2pt export peft", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source(parser)
    parser.add_argument(
        "--on",
        choices=("whole", "language"),
        default="whole",
        help="what PEFT puts it into: the whole model, which reads pictures (default), or its language model alone",
    )
    parser.add_argument(
        "--as-prefix",
        action="store_true",
        help="write rows in front of the first layer as a prefix: it stands in batches of several lengths as well",
    )
    return parser
