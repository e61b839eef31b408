"""Runs ``m2pt export checkpoint``; its flags and what it is for are in ``parsers``."""

from collections.abc import Sequence

from lightning_m2pt.commands.parsers.export_forms.checkpoint import argument_parser
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.runs.tuned_model import tuned_model
from lightning_m2pt.storage.foreign.published_export import export_checkpoint
from lightning_m2pt.system.console import say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    tuned = tuned_model(own.run, own.adapter)
    model = tuned.model([word for file in own.config for word in ("--config", file)], "m2pt export checkpoint")
    for path in export_checkpoint(tuned.adapter, model.method, model.backbone, own.output):
        say(f"{path} ({path.stat().st_size:,} bytes)")
    return ExitCode.DONE
