"""The scoring rules by name; every rule's own module says where it comes from.

``*_official`` is the benchmark's own tool, ``*_m2pt``, ``*_lmms`` and ``*_vlmevalkit`` are what M2PT's evaluation,
lmms-eval and VLMEvalKit make of the same answers; the rules for class names are compared in
``lightning_m2pt.metrics.word_matching``. ``closed_set``, ``yes_no_words`` and ``entailment_words`` are this project's.
Rules for free text, numbers and captions are in ``lightning_m2pt.metrics.open_answers``.
"""

from collections.abc import Callable, Mapping

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics import needs
from lightning_m2pt.metrics.choice_letter import choice_letter
from lightning_m2pt.metrics.closed_set import closed_set
from lightning_m2pt.metrics.entailment import entailment_words
from lightning_m2pt.metrics.mme_readings import mme_answer, mme_lmms_answer, mme_m2pt_answer, says_neither_word
from lightning_m2pt.metrics.open_answers.any_match import any_match, best_constant_match, target_and_references
from lightning_m2pt.metrics.open_answers.captions import (
    best_constant_caption,
    bleu_of_sums,
    bleu_sums,
    cider_sums,
    mean_of_sums,
    parse_caption,
    summarise_bleu,
    summarise_cider,
)
from lightning_m2pt.metrics.open_answers.numbers import (
    best_constant_number,
    number_within,
    relaxed_accuracy,
    target_and_tolerance,
)
from lightning_m2pt.metrics.pope import pope_answer, pope_lmms_answer, says_neither
from lightning_m2pt.metrics.rule import Header, Parse, Predictions, Rule, Sums
from lightning_m2pt.metrics.summaries import (
    best_constant_accuracy,
    best_constant_vqa,
    summarise_accuracy,
    summarise_has_word,
    summarise_mme,
    summarise_pope,
    summarise_pope_lmms,
    summarise_pope_vlmevalkit,
    summarise_vqa,
)
from lightning_m2pt.metrics.vlmevalkit import yes_no_vlmevalkit
from lightning_m2pt.metrics.vqa import parse_vqa
from lightning_m2pt.metrics.word_matching import exact, exact_ehub, has_word, vqa_equal, vqa_words
from lightning_m2pt.metrics.yes_no import yes_no_words


def open_reading(read: Callable[[str], str | None]) -> Parse:
    """Returns a reading that needs no list of possible answers as one that is given it."""
    return lambda answer, answers: read(answer)


RULES: Mapping[str, Rule] = {
    "mme_official": Rule(
        "MME's tool, line breaks and tabs read as spaces: yes or no among the first four characters",
        needs.mme_questions,
        open_reading(mme_answer),
        summarise_mme,
        default_of=("mme",),
    ),
    "mme_m2pt": Rule(
        "M2PT's evaluation of MME: yes, else no, anywhere, even within a word",
        needs.mme_questions,
        open_reading(mme_m2pt_answer),
        summarise_mme,
        says_nothing=says_neither_word,
    ),
    "mme_lmms": Rule(
        "lmms-eval's MME: as the official, but trimmed, without full stops, and y or n alone count",
        needs.mme_questions,
        open_reading(mme_lmms_answer),
        summarise_mme,
    ),
    "mme_vlmevalkit": Rule(
        "VLMEvalKit's MME: the word yes without no, or no without yes",
        needs.mme_questions,
        open_reading(yes_no_vlmevalkit),
        summarise_mme,
    ),
    "pope_official": Rule(
        "POPE's tool, line breaks and tabs read as spaces: no, not or No in the first sentence is no, all else is yes",
        needs.yes_or_no,
        open_reading(pope_answer),
        summarise_pope,
        default_of=("pope",),
        says_nothing=says_neither,
    ),
    "pope_lmms": Rule(
        "lmms-eval's POPE: exactly yes or no; precision, recall and F1 over these answers alone",
        needs.yes_or_no,
        open_reading(pope_lmms_answer),
        summarise_pope_lmms,
    ),
    "pope_vlmevalkit": Rule(
        "VLMEvalKit's POPE: the word yes without no, or no without yes; the number is F1",
        needs.yes_or_no,
        open_reading(yes_no_vlmevalkit),
        summarise_pope_vlmevalkit,
    ),
    "yes_no_words": Rule(
        "ours: yes, true, no or false as a word; both, a negation or a doubt is unparsed",
        needs.yes_or_no,
        open_reading(yes_no_words),
        summarise_accuracy,
        default_of=("vsr",),
        best_constant=best_constant_accuracy,
    ),
    "entailment_words": Rule(
        "ours: yes, no or not sure in any of their phrasings; two of them, or another negation or doubt, is unparsed",
        needs.yes_not_sure_or_no,
        open_reading(entailment_words),
        summarise_accuracy,
        default_of=("snli_ve",),
        best_constant=best_constant_accuracy,
    ),
    "closed_set": Rule(
        "ours: exactly one class named as a word, synonyms and plurals too; a negation or doubt is unparsed",
        needs.classes,
        closed_set,
        summarise_accuracy,
        default_of=("cifar10", "cifar100", "mnist"),
        best_constant=best_constant_accuracy,
    ),
    "has_word": Rule(
        "LVLM-eHub: the right answer stands in the text as a word, whatever else does",
        needs.few_answers,
        has_word,
        summarise_has_word,
        best_constant=best_constant_accuracy,
    ),
    "exact_ehub": Rule(
        "LVLM-eHub: equal texts, ASCII letters, digits and spaces alone, in any case",
        needs.few_answers,
        exact_ehub,
        summarise_accuracy,
        best_constant=best_constant_accuracy,
    ),
    "vqa_words": Rule(
        "Tiny-LVLM-eHub's VQAEval: as has_word after VQA's word processing (number words are digits)",
        needs.few_answers,
        vqa_words,
        summarise_accuracy,
        best_constant=best_constant_accuracy,
    ),
    "vqa_normalised": Rule(
        "VLMEvalKit's VQA: equal texts after VQA's word processing",
        needs.few_answers,
        vqa_equal,
        summarise_accuracy,
        best_constant=best_constant_accuracy,
    ),
    "exact": Rule(
        "lmms-eval's exact_match: equal texts in any case, without punctuation",
        needs.few_answers,
        exact,
        summarise_accuracy,
        best_constant=best_constant_accuracy,
    ),
    "choice_letter": Rule(
        "ours, after LLaVA's ScienceQA: the letter of one of the question's options, or the option's text exactly",
        needs.choices,
        choice_letter,
        summarise_accuracy,
        default_of=("multiple_choice",),
        best_constant=best_constant_accuracy,
        own_answers=lambda row: row["choices"],
    ),
    "vqa_accuracy": Rule(
        "TextVQA's: soft accuracy over what ten people answered",
        needs.people,
        open_reading(parse_vqa),
        summarise_vqa,
        default_of=("text_vqa",),
        best_constant=best_constant_vqa,
        gives_parts=True,
    ),
    "any_match": Rule(
        "ours: equal to any of a question's right answers after VQA's word processing",
        needs.references,
        any_match,
        summarise_accuracy,
        best_constant=best_constant_match,
        own_answers=target_and_references,
    ),
    "relaxed_accuracy": Rule(
        "ChartQA's: a number may be off by a share of the right one (5%), any other text has to be equal",
        needs.relative_tolerances,
        relaxed_accuracy,
        summarise_accuracy,
        best_constant=best_constant_number(relaxed_accuracy),
        own_answers=target_and_tolerance,
    ),
    "number_within": Rule(
        "ours: the one number in an answer, off by the question's tolerance at most",
        needs.numbers,
        number_within,
        summarise_accuracy,
        best_constant=best_constant_number(number_within),
        own_answers=target_and_tolerance,
    ),
    "cider": Rule(
        "CIDEr of captions by pycocoevalcap, 0 to 10 (papers print it times 100), words split without Java",
        needs.captions,
        open_reading(parse_caption),
        summarise_cider,
        best_constant=best_constant_caption(summarise_cider),
        gives_parts=True,
        sums=Sums(cider_sums, mean_of_sums),
    ),
    "bleu": Rule(
        "BLEU-4 of captions over the whole set by pycocoevalcap, words split without Java",
        needs.captions,
        open_reading(parse_caption),
        summarise_bleu,
        best_constant=best_constant_caption(summarise_bleu),
        gives_parts=True,
        sums=Sums(bleu_sums, bleu_of_sums),
    ),
}
"""Every rule by name."""


def fitting_rules(header: Header, predictions: Predictions) -> list[str]:
    """Returns the names of the rules that fit a set, in the order of ``RULES``.

    Args:
        header: The prediction file's header.
        predictions: Its lines.
    """
    return [name for name, rule in RULES.items() if fits(rule, header, predictions)]


def fits(rule: Rule, header: Header, predictions: Predictions) -> bool:
    """Tells whether a set has what a rule needs."""
    try:
        rule.needs(header, predictions)
    except BadInputError:
        return False
    return True
