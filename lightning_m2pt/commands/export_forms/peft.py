"""Runs ``m2pt export peft``; its flags and what it is for are in ``parsers``."""

from collections.abc import Sequence

from lightning_m2pt.commands.parsers.export_forms.peft import argument_parser
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.runs.tuned_model import tuned_at
from lightning_m2pt.storage.foreign.peft.written_adapter import export_peft
from lightning_m2pt.system.console import say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    tuned = tuned_at(own.source)
    model = tuned.model([word for file in own.config for word in ("--config", file)], "m2pt export peft")
    left_out = frozenset(own.leave_out)
    for path in export_peft(
        tuned.adapter, model.method, model.backbone, own.output, left_out, own.on, as_prefix=own.as_prefix
    ):
        say(f"{path} ({path.stat().st_size:,} bytes)")
    return ExitCode.DONE
