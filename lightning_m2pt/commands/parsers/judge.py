"""``m2pt judge``: let a local language model say which answers of a prediction file are right.

Writes ``verdicts/<set>.json`` beside ``predictions/``: every verdict and reply, the judge's fingerprint and prompt, the
score, and how far the verdicts agree with the rule ``exact`` (equal texts in any case, without punctuation).
"""

import argparse
from pathlib import Path

from lightning_m2pt.commands.parsers.counts import positive
from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(prog="m2pt judge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, help="a prediction file (predictions/<set>.jsonl)")
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of a causal language model: safetensors and a tokenizer"
    )
    parser.add_argument("--batch-size", type=positive, default=8, help="answers judged at once (default 8)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda where there is one)")
    parser.add_argument("--force", action="store_true", help="judge again even if verdicts are there")
    return parser
