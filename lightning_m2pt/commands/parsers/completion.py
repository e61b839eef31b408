"""``m2pt completion``: a script that lets a shell complete verbs, flags, their values and an experiment's keys.

  bash   m2pt completion bash > ~/.local/share/bash-completion/completions/m2pt
  zsh    m2pt completion zsh > ~/.m2pt-completion.zsh, and `source ~/.m2pt-completion.zsh` in ~/.zshrc
  fish   m2pt completion fish > ~/.config/fish/completions/m2pt.fish

The script is made from the verbs' own parsers and needs no Python when it completes. Make it again after an update.
Verbs that need a checkout are completed as this one has them; without one, by their names alone.
"""

import argparse

from lightning_m2pt.system.console import VerbParser

SHELLS = ("bash", "zsh", "fish")


def argument_parser() -> VerbParser:
    """Returns the verb's flags."""
    parser = VerbParser(
        prog="m2pt completion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell to write for")
    return parser
