"""What stands against a question: its texts, its pictures, what files say of it, and what is refused."""

import json
from dataclasses import replace

import numpy
import pytest

from experiments.runs.ways_to_answer import answering_of
from lightning_m2pt.answering.content_free import ContentFree
from lightning_m2pt.answering.decoding import best_candidate
from lightning_m2pt.answering.domain_premise import DomainPremise
from lightning_m2pt.answering.likelihood import Candidates
from lightning_m2pt.answering.prediction_line import prediction_line
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID
from lightning_m2pt.inputs.named_templates import RewordedTemplate, template_named
from lightning_m2pt.inputs.reworded_template import PromptText
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.testing.random_backbone import IMAGE_SIZE
from lightning_m2pt.testing.small_processor import small_processor
from tests.answering.test_own_candidates import asked
from tests.answering.test_premises import TEXT, TEXTS, one_colour, statements


def test_what_is_compared_is_the_difference_and_of_equal_ones_the_first():
    candidates = Candidates(("a", "b", "c"), ((1,), (2, 3), (4,)))
    answer = best_candidate(candidates, [-1.0, -2.0, -3.0], "likelihood_pmi", [-1.0, -4.0, -3.5])
    assert (answer.text, answer.margin) == ("b", 1.5)
    assert best_candidate(candidates, [-1.0, -2.0, -3.0], "likelihood_pmi", [-1.0, -2.0, -3.0]).text == "a"
    assert best_candidate(candidates, [-1.0, -2.0, -3.0], "likelihood_sum").premise_log_probabilities == {}


def test_lines_hold_both_and_the_lead_decides_near_ties(tmp_path):
    question = statements(tmp_path).questions()[0]
    candidates = Candidates(("Yes", "No"), ((1,), (2,)))
    line = prediction_line(
        "vsr", question, best_candidate(candidates, [-1.0, -9.0], "likelihood_pmi", [-2.0, -9.99999])
    )
    assert line["log_probabilities"] == {"Yes": -1.0, "No": -9.0}
    assert line["premise_log_probabilities"] == {"Yes": -2.0, "No": -9.99999}
    assert line["near_tie"]
    assert line["answer"] == "Yes"
    assert "premise_log_probabilities" not in prediction_line(
        "vsr", question, best_candidate(candidates, [-1.0, -9.0], "likelihood_sum")
    )


def test_headers_say_what_stands_against_a_question(tmp_path):
    module = statements(tmp_path)
    described = answering_of(module, "contextual_calibration", ContentFree(TEXTS, "none")).description()
    assert described == {
        "method": "contextual_calibration",
        "candidate_tokens": {"Yes": 2, "No": 2},
        "content_free": {"texts": list(TEXTS), "picture": "none"},
    }
    json.dumps(described)
    own = answering_of(asked(tmp_path / "choices"), "likelihood_pmi").description()
    assert own.keys() == {"method", "own_candidates_sha256", "premise"}


def test_a_prompt_s_words_stay_around_the_text_and_are_no_part_of_the_premise(tmp_path):
    module = statements(tmp_path)
    base = module.template
    module.template = RewordedTemplate("plain+brief", base, PromptText("{question} the color is", ""))
    premises = answering_of(module, "contextual_calibration", ContentFree((TEXT,))).premises
    (only,) = premises.known
    words = module.processor.tokenizer.convert_ids_to_tokens(only.text.input_ids[only.text.input_ids >= 0].tolist())
    assert " ".join(words).endswith("what is it ? the color is Answer :")
    premises = answering_of(module, "likelihood_pmi").premises
    assert premises.said == {"premise": {"text": "Answer:", "tokens": 3}}


@pytest.mark.parametrize(
    ("name", "words", "tokens"),
    [("plain", "Answer:", ["<s>", "Answer", ":"]), ("vicuna_v1", "ASSISTANT:", ["<s>", "ASSISTANT", ":"])],
)
def test_the_default_premise_is_what_the_template_writes_before_an_answer(name, words, tokens):
    processor = small_processor(IMAGE_SIZE)
    premises = DomainPremise().premises([], processor, template_named(name))
    assert processor.tokenizer.convert_ids_to_tokens(premises.known[0].text.input_ids.tolist()) == tokens
    assert premises.said["premise"] == {"text": words, "tokens": 3}
    named = DomainPremise(words).premises([], processor, template_named(name))
    assert named.known[0].text.input_ids.tolist() == premises.known[0].text.input_ids.tolist()


def test_templates_of_other_models_end_with_their_own_signs():
    processor = small_processor(IMAGE_SIZE)
    template = replace(template_named("chatml"), name="other", end_of_answer="</s>", before_answer="</s>\nASSISTANT\n")
    premises = DomainPremise().premises([], processor, template)
    assert premises.said["premise"]["text"] == "</s>\nASSISTANT"
    question = Sample("q", None, "", (Turn("what is it ?"),), ("",), "q")
    whole = processor.encode(question, template, with_answers=False).input_ids.tolist()
    ids = premises.known[0].text.input_ids.tolist()
    begins = ids[:1] == [processor.tokenizer.bos_token_id]
    assert whole[-len(ids) + begins :] == ids[begins:]


@pytest.mark.parametrize(
    ("make", "where", "what"),
    [
        (lambda: ContentFree(()), "--calibration-text", "empty"),
        (lambda: ContentFree(("  ",)), "--calibration-text", "empty"),
        (lambda: ContentFree(("", "")), "--calibration-text", "empty"),
        (lambda: ContentFree(("a", "a")), "--calibration-text", "twice"),
        (lambda: ContentFree(("a <image>",)), "--calibration-text", "<image>"),
        (lambda: ContentFree(("a {question}",), "own"), "--calibration-text", "all of the question's content"),
        (lambda: DomainPremise(""), "--premise", "empty"),
        (lambda: DomainPremise(" \n"), "--premise", "empty"),
        (lambda: DomainPremise("<image>"), "--premise", "<image>"),
    ],
)
def test_texts_that_say_nothing_are_refused(make, where, what):
    with pytest.raises(BadInputError, match=what) as caught:
        make()
    assert caught.value.where == where
    assert caught.value.expected


@pytest.mark.parametrize(
    ("method", "rule", "what"),
    [
        ("contextual_calibration", None, "does not know 'N'"),
        ("contextual_calibration", ContentFree((TEXT, "the zebra")), "does not know 'zebra'"),
        ("contextual_calibration", ContentFree(("it is </s>",)), "'</s>' stands in the text"),
        ("likelihood_pmi", DomainPremise("zebra:"), "does not know 'zebra'"),
        ("likelihood_pmi", DomainPremise("</s>"), "'</s>' stands in the text"),
        ("likelihood_pmi", ContentFree((TEXT,)), "sets nothing like ContentFree"),
        ("contextual_calibration", DomainPremise(), "sets nothing like DomainPremise"),
        ("likelihood_sum", DomainPremise(), "sets nothing like DomainPremise"),
        ("greedy", ContentFree((TEXT,)), "sets nothing like ContentFree"),
    ],
)
def test_what_cannot_be_set_against_a_question_is_refused(tmp_path, method, rule, what):
    with pytest.raises(BadInputError, match=what) as caught:
        answering_of(statements(tmp_path), method, rule)
    assert caught.value.expected


def test_no_picture_behind_examples_with_pictures_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="behind examples with pictures") as caught:
        answering_of(statements(tmp_path, shots=1), "contextual_calibration", ContentFree((TEXT,), "none"))
    assert caught.value.where == "--calibration-picture"


def test_a_template_without_words_before_an_answer_needs_a_premise():
    processor = small_processor(IMAGE_SIZE)
    template = replace(template_named("plain"), name="bare", before_answer="")
    with pytest.raises(BadInputError, match="bare writes nothing between a question and its answer") as caught:
        DomainPremise().premises([], processor, template)
    assert "--premise" in caught.value.hint
    assert DomainPremise("Answer:").premises([], processor, template).known


def test_samples_without_a_picture_are_calibrated_without_one():
    processor = small_processor(IMAGE_SIZE)
    question = Sample("q", None, "", (Turn("is it red ?"),), ("",), "q")
    premises = ContentFree((TEXT,), "mean").premises([question], processor, template_named("plain"))
    (only,) = premises.known
    assert not only.sample.images
    assert IMAGE_TOKEN_ID not in only.text.input_ids


def test_every_picture_of_a_question_gives_way():
    processor = small_processor(IMAGE_SIZE)
    picture = numpy.arange(IMAGE_SIZE * IMAGE_SIZE * 3, dtype=numpy.uint8).reshape(IMAGE_SIZE, IMAGE_SIZE, 3)
    question = Sample("q", picture, "p", (Turn("is it red ?"),), ("",), "q", further_images=(picture,))
    premises = ContentFree((TEXT,), "mean").premises([question], processor, template_named("plain"))
    shown = premises.known[0].sample.images
    assert len(shown) == 2
    assert all((image == one_colour()).all() for image in shown)
    none = ContentFree((TEXT,), "none").premises([question], processor, template_named("plain"))
    assert not none.known[0].sample.images


def test_a_question_without_pictures_says_nothing_of_where_they_were_shown():
    turns = Turn("what ?", "red"), Turn("is it red ?")
    question = Sample("q", "a.png", "a", turns, ("", ""), "q", further_images=("b.png",), shown_in_turns=(1, 1))
    found = ContentFree((TEXT,), "none").without_content(question, TEXT, one_colour())
    assert found == Sample("q", None, "", (turns[0], Turn(TEXT)), ("", ""), "q")


def test_questions_with_other_system_texts_have_premises_of_their_own():
    processor = small_processor(IMAGE_SIZE)
    samples = [
        Sample(name, None, "", (Turn("is it red ?"),), ("",), "q", system=system)
        for name, system in (("a", "yes"), ("b", "no"), ("c", "yes"))
    ]
    premises = ContentFree((TEXT,), "mean").premises(samples, processor, template_named("vicuna_v1"))
    assert dict(premises.of_question) == {"a": (0,), "b": (1,), "c": (0,)}
    assert [each.sample.system for each in premises.known] == ["yes", "no"]
