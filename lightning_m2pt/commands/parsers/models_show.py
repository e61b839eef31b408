"""``m2pt models show``: what a model is, how it runs here, what M2PT would train on it and what that takes.

All of it comes from the model's config.json, which has to be there; weights are not read and need not be. Counts are
those of ``m2pt params``. Memory is an estimate for one device, with texts and pictures of the given sizes.

Examples:
  m2pt models show models/llava-1.5-7b-hf
  m2pt models show HuggingFaceTB/SmolVLM-256M-Instruct --size 1024x768
  m2pt models show models/llava-1.5-7b-hf --samples 8 --json
"""

import argparse

from lightning_m2pt.system.console import VerbParser


def argument_parser() -> VerbParser:
    """Returns the command's flags."""
    parser = VerbParser(
        prog="m2pt models show",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a folder, or OWNER/NAME of a model that was fetched")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a fetched model (default: main)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="samples of a micro-batch (default: 1)")
    parser.add_argument("--text", type=int, default=512, metavar="N", help="tokens of the longest text (default: 512)")
    parser.add_argument(
        "--size", default="640x480", metavar="WxH", help="pixels of every sample's picture (default: 640x480)"
    )
    parser.add_argument("--json", action="store_true", help="write JSON")
    return parser
