"""``m2pt merge``: a tuned model as one folder of transformers, the trained tensors in the base's own.

Low-rank updates, norms, a projector, a head and all that full fine-tuning trains become weights of the base, in its
type. Prompts are no weights: they are refused, or left out with ``--leave-out PART``; ``m2pt export peft`` writes them
for PEFT. A CLIP of open_clip with a linear projector and a language model becomes a LLaVA
(``LlavaForConditionalGeneration``), processor included; with everything left out it is the frozen base in that form.
"""

import argparse

from lightning_m2pt.commands.parsers.tuned import add_source
from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(prog="m2pt merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source(parser)
    return parser
