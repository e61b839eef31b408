"""From a prediction file to a score file; needs no torch."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.known_sizes import other_revision
from lightning_m2pt.metrics.peer_formats.llava_answers import holds_answers, imported_answers
from lightning_m2pt.metrics.predictions import (
    PredictionFile,
    check_paired,
    check_same_questions,
    read_predictions,
)
from lightning_m2pt.metrics.rules import RULES, fitting_rules
from lightning_m2pt.metrics.score import Score, named_rule, score
from lightning_m2pt.system.atomic_files import write_atomically

EVERY_FITTING_RULE = "all"


def score_file(predictions: Path, rule: str | None = None) -> tuple[dict[str, Any], Score]:
    """Scores one prediction file.

    Args:
        predictions: The JSONL file.
        rule: Name of a rule; None takes the file's default.

    Returns:
        The file's header and the score.

    Raises:
        BadInputError: If the file is damaged or the rule does not fit.
    """
    content = read_predictions(predictions)
    return dict(content.header), score_content(predictions, content, rule or content.header["default_rule"])


def score_under(
    predictions: Path, rules: Sequence[str], against: Path | None = None, questions: Path | None = None
) -> list[Score]:
    """Scores one prediction file under several rules.

    Args:
        predictions: The JSONL file.
        rules: Names of rules, ``all`` for every rule that fits; none takes the file's default.
        against: Another prediction file, which must answer the same questions. Where the file holds answers of
            LLaVA's scripts, their questions are looked up there.
        questions: LLaVA's question file for such answers, where their ids are its numbers.

    Raises:
        BadInputError: If a file is damaged, the questions differ, or a rule does not fit.
    """
    is_llavas = against is not None and holds_answers(predictions)
    if questions is not None and not is_llavas:
        raise BadInputError(
            "a question file goes with answers of LLaVA's scripts",
            where="command line: --questions",
            expected="such a file, and --against PREDICTIONS",
        )
    asked = None if against is None else read_predictions(against)
    content = (
        read_predictions(predictions)
        if asked is None or not is_llavas
        else imported_answers(predictions, asked, questions)
    )
    if asked is not None:
        check_same_questions(content.predictions, [row["id"] for row in asked.predictions], str(predictions))
        check_paired(content.predictions, asked.predictions, (str(predictions), str(against)))
        refuse_other_data(predictions, content, asked)
    named = rules or [content.header["default_rule"]]
    fitting = fitting_rules(content.header, content.predictions) if EVERY_FITTING_RULE in named else []
    if EVERY_FITTING_RULE in named and not fitting:
        raise BadInputError(
            f"no rule fits these questions of {content.header['benchmark']}"
            if content.predictions
            else "there are no predictions",
            where=str(predictions),
            expected=f"a set that has rules: {', '.join(name for rule in RULES.values() for name in rule.default_of)}",
            hint="name one rule to hear what it needs",
        )
    names = dict.fromkeys(name for rule in named for name in (fitting if rule == EVERY_FITTING_RULE else [rule]))
    return [score_content(predictions, content, name) for name in names]


def refuse_other_data(predictions: Path, content: PredictionFile, asked: PredictionFile) -> None:
    """Refuses answers to the same questions about other pictures, or about another revision of the set.

    Raises:
        BadInputError: If the data's fingerprints differ.
    """
    revisions = [str(file.header["data_revision"]) for file in (content, asked)]
    if revisions[0] != revisions[1]:
        raise BadInputError(
            f"the data revision is {revisions[0]:.8}, and {revisions[1]:.8} in the other",
            where=str(predictions),
            expected="answers to the same questions about the same pictures",
            hint="answer both on the same data",
        )


def check_rules(names: Sequence[str]) -> None:
    """Refuses the first name that is no rule's, before any file is read.

    Raises:
        BadInputError: If there is none of that name.
    """
    for name in names:
        if name != EVERY_FITTING_RULE:
            named_rule(name)


def score_content(predictions: Path, content: PredictionFile, rule: str) -> Score:
    """Scores a prediction file's content.

    Args:
        predictions: Where it stands, for errors.
        content: What was read from there.
        rule: Name of a rule.

    Raises:
        BadInputError: If the rule does not fit, naming the file.
    """
    try:
        scored = score(content.header, content.predictions, rule)
    except BadInputError as error:
        raise BadInputError(
            error.what, where=f"{predictions}: {error.where}", expected=error.expected, hint=error.hint
        ) from error
    other = other_revision(scored.benchmark, Counter(row["subtask"] for row in content.predictions))
    return replace(scored, part=", ".join(filter(None, (other, scored.part))))


def write_score(folder: Path, header: dict[str, Any], scored: Score) -> Path:
    """Writes ``scores/<set>.json``: the score, parsed answers, and what the predictions were made with.

    Args:
        folder: The folder that holds ``predictions/``.
        header: The prediction file's header.
        scored: Its score.
    """
    path = folder / "scores" / f"{scored.benchmark}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"predictions_header": header, "toggles": header["toggles"], **scored.to_json()}
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    return path
