"""How MME's scorers read an answer: as yes, as no, or as neither, which is wrong.

All of them score pairs of questions in the same way (``lightning_m2pt.metrics.mme``); VLMEvalKit's reading is
``lightning_m2pt.metrics.vlmevalkit.yes_no_vlmevalkit``.
"""

import re

READ_CHARACTERS = 4
WORD_YES_OR_NO = re.compile(r"\b(?:yes|no)\b")


def first_characters(text: str) -> str | None:
    """Returns "yes" or "no", whichever is looked for first and stands in a text's first four characters, or None."""
    beginning = text[:READ_CHARACTERS]
    if "yes" in beginning:
        return "yes"
    return "no" if "no" in beginning else None


def mme_answer(answer: str) -> str | None:
    """Returns "yes" or "no" as the official tool reads an answer, or None.

    Source: ``calculation.py`` in ``eval_tool.zip`` of the MME repository (2023-07-01). The answer is lower-cased, and
    its first four characters are searched for "yes", then for "no". Nothing is trimmed. The only deviation: newlines
    and tabs become spaces first, which the official tool cannot read at all.
    """
    return first_characters(answer.lower().replace("\n", " ").replace("\t", " "))


def mme_m2pt_answer(answer: str) -> str | None:
    """Returns "yes" or "no" as M2PT's evaluation reads an answer, or None.

    Source: ``eval_mme.py`` of https://github.com/William-wAng618/M2PT, before the official tool. "yes" anywhere in the
    lower-cased answer is yes, else "no" anywhere is no, also in "cannot", "know" or "snow".
    """
    lower = answer.lower()
    if "yes" in lower:
        return "yes"
    return "no" if "no" in lower else None


def mme_lmms_answer(answer: str) -> str | None:
    """Returns "yes" or "no" as lmms-eval reads an answer, or None.

    Source: ``parse_pred_ans`` in ``lmms_eval/tasks/mme/utils.py`` of https://github.com/EvolvingLMMs-Lab/lmms-eval. The
    answer is trimmed and lower-cased, and its full stops go; "y" and "n" alone count, otherwise the first four
    characters as in the official tool.
    """
    text = answer.lower().strip().replace(".", "")
    return {"y": "yes", "n": "no"}.get(text) or first_characters(text)


def says_neither_word(answer: str) -> bool:
    """Tells whether an answer holds neither "yes" nor "no" as a word ("I cannot tell" is a no to M2PT's reading)."""
    return WORD_YES_OR_NO.search(answer.lower()) is None
