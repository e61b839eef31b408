"""Runs ``m2pt score``; its flags and what it is for are in ``parsers``."""

import json
from collections.abc import Sequence

from lightning_m2pt.commands.parsers.score import argument_parser
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.report.tables.scores import score_table
from lightning_m2pt.runs.scoring import check_rules, score_under
from lightning_m2pt.system.console import OUT, say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    check_rules(own.rule)
    scores = [scored for path in own.predictions for scored in score_under(path, own.rule, own.against, own.questions)]
    if own.json:
        say(json.dumps([{**scored.to_json(), "parsed": None} for scored in scores]))
    else:
        OUT.print(score_table(scores))
    return ExitCode.DONE
