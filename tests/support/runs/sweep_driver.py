"""``m2pt sweep`` with ``sweep_program`` for ``m2pt``: ``python -m tests.support.runs.sweep_driver run FILE``."""

import json
import sys
from types import SimpleNamespace
from unittest import mock

from experiments.commands import sweep
from experiments.sweep import runner as sweep_runner
from experiments.sweep.jobs import SweepSettings
from experiments.sweep.variant import Variant
from lightning_m2pt.errors import M2PTError

PROGRAM = (sys.executable, "-m", "tests.support.runs.sweep_program")


def parsed(variant: Variant, _setting: SweepSettings) -> SimpleNamespace:
    """Returns as much of an experiment as a sweep looks at."""
    config = json.loads(variant.configs[0].read_text())
    rates = config.get("rates", {"prompts": 0.01})
    return SimpleNamespace(
        config={"model": {"optimizer": {"learning_rate": rates}}},
        trainer_values={"max_steps": config["steps"]},
        model=SimpleNamespace(
            gradient_norm=None,
            method=SimpleNamespace(part_names=lambda: list(rates), possible_parts=lambda: list(rates)),
        ),
    )


def main(words: list[str]) -> int:
    """Runs the verb and returns its exit code."""
    with mock.patch.object(sweep_runner, "M2PT", PROGRAM), mock.patch.object(sweep, "parsed", parsed):
        try:
            return int(sweep.main(words))
        except M2PTError as error:
            sys.stderr.write(error.message() + "\n")
            return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
