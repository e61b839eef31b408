"""Runs ``m2pt merge``; its flags and what it is for are in ``parsers``."""

from collections.abc import Sequence

from lightning_m2pt.commands.parsers.merge import argument_parser
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.runs.tuned_model import tuned_at
from lightning_m2pt.storage.foreign.cards import merged_card
from lightning_m2pt.storage.foreign.llava.beside import left_behind
from lightning_m2pt.storage.foreign.llava.merging import merge
from lightning_m2pt.system.console import say
from lightning_m2pt.visible_text import counted


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    tuned = tuned_at(own.source)
    model = tuned.model([word for file in own.config for word in ("--config", file)], "m2pt merge")
    left_out = frozenset(own.leave_out)
    behind = left_behind(model.backbone)
    card = merged_card(tuned.adapter, model.method, model.backbone, left_out, behind)
    for path in merge(tuned.adapter, model.method, model.backbone, own.output, left_out, card):
        say(f"{path} ({path.stat().st_size:,} bytes)")
    if behind:
        say(f"of the base's folder these are left out, for no code is carried over: {counted(behind)}")
    return ExitCode.DONE
