"""What a prompt may say and where it stands, by value: no model, and tokenizers of a few words."""

from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import yaml

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.encoded_text import EncodedText
from lightning_m2pt.inputs.named_templates import NativeTemplate
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.inputs.templates import VICUNA_V1
from lightning_m2pt.prompt_search.allowed_tokens import (
    AllowedTokens,
    can_be_written,
    special_tokens,
    words_of_answers,
)
from lightning_m2pt.prompt_search.placing import refuse_own_systems, system_text
from lightning_m2pt.prompt_search.prompt_texts import OpenText, PromptTexts, drawn_start, is_same
from lightning_m2pt.prompt_search.record import prompt_file
from lightning_m2pt.prompt_search.written_prompts import WrittenPrompts


def answered(*answers: str, system: str = "") -> Sample:
    turns = tuple(Turn("what ?", answer) for answer in answers)
    return Sample("one", None, "", turns, ("",), "a file", system=system)


def text_of(*ids: int, span: Span = Span.QUESTION) -> EncodedText:
    return EncodedText(numpy.array(ids, numpy.int32), numpy.full(len(ids), span, numpy.int8))


def test_signs_of_every_kind_are_no_words() -> None:
    added = {1: SimpleNamespace(special=True), 2: SimpleNamespace(special=False)}
    tokenizer = SimpleNamespace(added_tokens_decoder=added, all_special_ids=[3])
    processor: Any = SimpleNamespace(tokenizer=tokenizer, picture_tokens={4}, pad_token_id=5)
    assert special_tokens(processor) == {1, 3, 4, 5}


@pytest.mark.parametrize("text", ["", "{", "a}b", "\ufffd", "see <image>", "a\nb", "\x07"])
def test_what_a_file_could_not_hold_is_not_written(text: str) -> None:
    assert not can_be_written(text)
    assert can_be_written(f"a{'b' * len(text)}")


def test_words_of_all_answers_count_in_small_letters_and_without_their_stops() -> None:
    texts: Any = SimpleNamespace(processor=SimpleNamespace(encode_each=lambda *_: []), template=VICUNA_V1)
    assert words_of_answers(texts, [answered("A Red, box.", "No!"), answered("five")]) == {
        "a",
        "red",
        "box",
        "no",
        "five",
    }


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("see it", (1, 2)),
        ("  see\n it ", (1, 2)),
        ("see it well now", "it has more than 3 tokens"),
        ("see it well", (1, 2, 3)),
        ("see sign", "it has a word that the model does not know, or a special token"),
        ("see red", "it has a word of answers"),
        ("see 'Box'!", "it has a word of answers"),
        ("see {it}", "it cannot be written in a prompt's file"),
        ("joined", "the tokenizer joins it with the words around it"),
    ],
)
def test_written_texts_become_prompts_or_say_why_not(text: str, read: object, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"see": 1, "it": 2, "well": 3, "now": 4, "sign": 9, "red": 7, "'Box'!": 5}
    allowed = AllowedTokens((), special=frozenset({9}), said=frozenset({7, "box"}))
    texts: Any = SimpleNamespace(has_room=lambda length: length <= 3)
    prompts = WrittenPrompts(texts, allowed, most_tokens=3)
    monkeypatch.setattr(prompts, "tokens", lambda text: tuple(known[word] for word in text.split() if word in known))
    assert prompts.read(text) == read
    longer = WrittenPrompts(texts, allowed)
    monkeypatch.setattr(longer, "tokens", lambda text: (1, 2, 3, 4))
    assert longer.read("see") == "a conversation becomes too long with it"


def test_room_is_what_the_longest_conversation_leaves() -> None:
    opened = [SimpleNamespace(places=(3,)), SimpleNamespace(places=(2, 4))]
    texts: Any = SimpleNamespace(max_text_length=12, untouched=[text_of(*range(9)), text_of(*range(6))], opened=opened)
    assert [PromptTexts.has_room(texts, length) for length in (3, 4)] == [True, False]
    texts.untouched[1] = text_of(*range(8))
    assert [PromptTexts.has_room(texts, length) for length in (2, 3)] == [True, False]
    texts.max_text_length = None
    assert PromptTexts.has_room(texts, 10**6)


def test_prompts_stand_in_all_their_places_and_supervision_has_to_be_the_same() -> None:
    opened = OpenText(text_of(5, 6, 7), (1, 3), Span.QUESTION)
    filled = opened.filled((8, 9))
    assert filled.input_ids.tolist() == [5, 8, 9, 6, 7, 8, 9]
    assert opened.starts(2) == (1, 5)
    assert is_same(text_of(1, 2), text_of(1, 2))
    assert not is_same(text_of(1, 2), text_of(1, 2, span=Span.ANSWER))
    assert not is_same(text_of(1, 2), text_of(1, 3))


def test_a_start_hangs_on_seed_and_length_and_is_the_first_that_is_read() -> None:
    tried: list[tuple[int, ...]] = []

    def survivors(prompts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        tried.extend(prompts)
        return prompts if len(tried) == 3 else []

    texts: Any = SimpleNamespace(survivors=survivors)
    found = drawn_start(texts, range(50), 4, 7)
    drawn = numpy.random.default_rng([7, 4]).choice(numpy.arange(50), size=(100, 4))
    assert tried == [tuple(row) for row in drawn[:3].tolist()]
    assert found == tried[2]
    texts.survivors = lambda _: []
    with pytest.raises(BadInputError, match="none of 100 drawn prompts is read"):
        drawn_start(texts, range(50), 4, 7)


def test_the_system_text_keeps_the_template_s_own_in_front() -> None:
    own = VICUNA_V1.system.strip()
    assert own
    assert system_text(VICUNA_V1, "be brief") == f"{own} be brief"
    assert system_text(NativeTemplate(system="You see."), "be brief") == "You see. be brief"
    assert system_text(NativeTemplate(), "be brief") == "be brief"
    file = yaml.safe_load(prompt_file("be brief", "system", VICUNA_V1))
    assert file == {"based_on": "vicuna_v1", "question": "{question}", "system": f"{own} be brief"}
    file = yaml.safe_load(prompt_file("be brief", "behind_question", NativeTemplate("mine.yaml")))
    assert file == {"question": "{question} be brief"}


def test_a_prompt_takes_no_system_text_s_place() -> None:
    samples = [answered("yes"), answered("no", system="You see.")]
    with pytest.raises(BadInputError, match="sample one has a system text of its own"):
        refuse_own_systems(samples, "system")
    refuse_own_systems(samples, "behind_question")
    refuse_own_systems(samples[:1], "system")
