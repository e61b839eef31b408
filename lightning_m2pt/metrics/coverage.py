"""How much of a set was answered, as far as a prediction file tells: a score over less carries it in its name."""

import re

from lightning_m2pt.metrics.predictions import ASKED_WITH, OF_QUESTIONS
from lightning_m2pt.metrics.rule import Header, Predictions

POPE_SPLITS = ("random", "popular", "adversarial")
CALIBRATED = ("contextual_calibration", "likelihood_pmi")
"""Ways to choose an answer that no published number of a set was made with: they stand in the score's name."""
LIMIT = re.compile(r"\[([\d,]+ of [\d,]+) questions\]")
"""What ``set_name`` puts behind a set of which fewer questions were asked, and nothing else is special."""


def part_answered(header: Header, predictions: Predictions) -> str:
    """Returns what of its set a prediction file answers, such as "2 of 3 splits", and with what; empty for all of it.

    A calibrated choice among candidates is named, too.

    MME's missing subtasks are part of its headline's name instead.

    Args:
        header: The prediction file's header.
        predictions: Its lines.
    """
    parts = [f"with {header[ASKED_WITH]}"] if header.get(ASKED_WITH) else []
    method = header.get("decoding", {}).get("method")
    parts += [method] if method in CALIBRATED else []
    if header["benchmark"] == "pope":
        splits = {row["subtask"] for row in predictions} - {""}
        known = len(splits.intersection(POPE_SPLITS))
        others = len(splits) - known
        if splits and (known < len(POPE_SPLITS) or others):
            parts.append(f"{known} of {len(POPE_SPLITS)} splits" + (f" and {others} others" if others else ""))
    asked = header.get(OF_QUESTIONS, len(predictions))
    if asked > len(predictions):
        parts.append(f"{len(predictions):,} of {asked:,} questions")
    return ", ".join(parts)


def set_name(benchmark: str, part: str) -> str:
    """Returns a set's name, with what of it was answered if that is not all of it: "pope[2 of 3 splits]"."""
    return f"{benchmark}[{part}]" if part else benchmark


def limit_in(name: str) -> str:
    """Returns how many of a set's questions were asked, such as "160 of 1,600"; empty where its name says no such."""
    found = LIMIT.search(name)
    return found[1] if found else ""


def without_limit(name: str) -> str:
    """Returns a set's name without its number of questions; whatever else it says of the set stays."""
    return LIMIT.sub("", name)
