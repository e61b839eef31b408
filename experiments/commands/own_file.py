"""An experiment whose set is a file of the user's own: its model and its evaluation sets stay."""

from collections.abc import Sequence
from pathlib import Path

from experiments.configuration.cli import Experiment, parse_experiment
from lightning_m2pt.configuration.paths import HUB
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.score import named_rule

CONVERSATIONS, QUESTIONS = "data_modules.conversations.Conversations", "data_modules.questions.Questions"


def experiment_of_words(
    file: str | None, rule: str | None, template: str | None, files: Sequence[str], settings: Sequence[str]
) -> Experiment:
    """Returns the experiment of configuration files and settings, with a file in the place of its set if one is named.

    Args:
        file: A file, a folder, or ``hub:OWNER/NAME``.
        rule: Scoring rule, if the file holds questions to evaluate.
        template: Conversation template of the file; None takes the experiment's.
        files: ``--config FILE``, word by word.
        settings: ``--KEY VALUE``, word by word.

    Raises:
        BadInputError: If a word is wrong, or flags of a file are given without one.
    """
    if file is None:
        flag = "--rule" if rule is not None else "--template" if template is not None else None
        if flag is not None:
            raise BadInputError(
                f"{flag} is of a file, and none is named", where=f"command line: {flag}", expected=f"FILE before {flag}"
            )
        return parse_experiment([*files, *settings])
    if not file.startswith(HUB) and not Path(file).exists():
        raise BadInputError("the file does not exist", where=file, expected="a file, a folder, or hub:OWNER/NAME")
    if rule is not None:
        named_rule(rule, "command line: --rule")
    shipped = parse_experiment(files)
    kind = CONVERSATIONS if rule is None else QUESTIONS
    words = ["--data", kind, "--data.file", file]
    words += ["--data.template", template or str(shipped.config["data"]["init_args"]["template"])]
    words += ["--data.batch_size", "1"] if rule is None else ["--data.rule", rule]
    return parse_experiment([*files, *words, *settings])
