"""A local language model as a judge: is an answer right, given the question and the right answer?

The published script (``llm_eval_all.py`` of https://github.com/William-wAng618/M2PT) searches the model's whole output
for "yes", the prompt included, which itself says "Yes or No": so read, every answer of every model is right. Here only
new tokens are decoded, greedily, and a reply counts if it says yes and not no, or no and not yes.

The prompt is our own. An answer is part of it, so a model that answers with instructions could sway the judge; the
agreement with equality of texts is there to show it.
"""

import re

from lightning_m2pt.answering.local_model import LocalModel

PROMPT = (
    "Here is a question about a picture, its right answer, and the answer that somebody gave.\n"
    "Question: {question}\n"
    "Right answer: {target}\n"
    "Given answer: {answer}\n"
    "Does the given answer mean the same as the right answer? Reply with one word, yes or no.\n"
    "Reply:"
)
MAX_NEW_TOKENS = 5


def judge_prompt(question: str, target: str, answer: str) -> str:
    """Returns what the judge reads; every text is on one line."""
    texts = {"question": question, "target": target, "answer": answer}
    # A lone surrogate, which an answer may hold, is no text for a tokenizer.
    flat = {key: " ".join(text.encode(errors="replace").decode().split()) for key, text in texts.items()}
    return PROMPT.format(**flat)


def read_verdict(reply: str) -> bool | None:
    """Returns True for a reply that says yes, False for no, and None for neither or both."""
    words = set(re.findall(r"[a-z]+", reply.lower()))
    if ("yes" in words) == ("no" in words):
        return None
    return "yes" in words


class LocalJudge(LocalModel):
    """A model that judges: a few greedy tokens a prompt."""

    called = "the judge"
    max_new_tokens = MAX_NEW_TOKENS
