"""``m2pt convert``: weights that others wrote, as safetensors; the numbers stay what they are.

  LLaVA's mm_projector.bin                   -> projector.safetensors
  OpenAI's CLIP (ViT-L-14.pt)                -> open_clip_model.safetensors
  open_clip_pytorch_model.bin, a tower alone -> open_clip_model.safetensors
  FOLDER with pytorch_model.bin, or shards   -> model.safetensors, or shards and their index, beside it
  --layout: a CLIP vision tower of transformers in open_clip's form or the other way round, configuration beside it
  a checkpoint of M2PT's published code      -> a base and an adapter in --output DIR
  TVP's prompt in pixels (perturbation)      -> an adapter in --output DIR, for the base of --config EXPERIMENT
  FOLDER that PEFT wrote (LORA, PREFIX_TUNING, PROMPT_TUNING, LN_TUNING)
                                             -> an adapter in --output DIR, for --base or the base of --config

Backbones read safetensors alone: a pickle can run code when it is opened. Here pickles are read by torch's reader of
tensors, which refuses everything else, and TorchScript archives without their code. Numbers go from file to file, one
tensor at a time; the header keeps the source's SHA-256. What is cut off, damaged, not finite or in the way is refused,
and nothing has changed then.

A published checkpoint is the whole model: pytorch_model-0000N-of-00002.bin, config.json, tokenizer. DIR gets ``base``,
``adapter`` and ``backbone.yaml``, which names the base for --config. The projector and the head of before the tuning
are not in a checkpoint: such a base has the tuned ones, too. With --config EXPERIMENT the adapter is made for that
experiment's base; so are files of prompts alone, with the published names or numbered 0, 1, 2, ..., and
mm_projector.bin beside them. m2pt export checkpoint is the way back.
"""

import argparse
from pathlib import Path

from lightning_m2pt.system.console import VerbParser

EXAMPLES = """examples:
  m2pt convert models/llava-pretrain-vicuna-7b-v1.3/mm_projector.bin
  m2pt convert models/vicuna-7b-v1.3
  m2pt convert models/clip-vit-large-patch14 --layout open_clip --output models/clip-vit-large-patch14-open_clip
  m2pt convert best_checkpoint --output imported
  m2pt convert somebodys_lora --base hub:llava-hf/llava-1.5-7b-hf --template native --output imported
  m2pt convert checkpoint_best.pth --config experiments/tvp_vicuna7b.yaml --output imported
  m2pt convert vision_prompt.bin llm_prompt.bin --config experiments/m2pt_vicuna7b.yaml --output imported
"""
LAYOUTS = ("open_clip", "transformers")
"""As ``Layout``, whose module needs torch."""


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(
        prog="m2pt convert",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sources",
        type=Path,
        nargs="+",
        metavar="SOURCE",
        help="a weight file or a model's folder; files of a checkpoint",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="a .safetensors file, or a folder, which also gets what belongs to the weights (default: beside them)",
    )
    parser.add_argument("--layout", choices=LAYOUTS, help="names of a CLIP vision tower; needs --output DIR")
    parser.add_argument(
        "--base",
        metavar="BASE",
        help="of an adapter that PEFT wrote: the folder of the model it was tuned on, hub:OWNER/NAME or testbed",
    )
    parser.add_argument(
        "--template",
        metavar="NAME",
        help="of an adapter that PEFT wrote: the conversation form it was trained with, such as vicuna_v1 or native",
    )
    of_checkpoint = parser.add_argument_group("of a checkpoint of M2PT's or TVP's published code")
    of_checkpoint.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="an experiment on the base to take"
    )
    of_checkpoint.add_argument(
        "--tower", type=Path, metavar="DIR", help="the tower's configuration, unless it is one of OpenAI's large CLIPs"
    )
    of_checkpoint.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="tokenizer.json and its settings, if the checkpoint has none"
    )
    return parser
