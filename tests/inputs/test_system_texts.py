"""A conversation's own system text, and pictures that later turns show, in every kind of template."""

import pytest

from data_modules.base import items_fingerprint
from data_modules.instruction import join_conversations
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Span
from lightning_m2pt.inputs.bound_template import BoundTemplate
from lightning_m2pt.inputs.chat_form import ChatForm
from lightning_m2pt.inputs.chat_template import ChatTemplate
from lightning_m2pt.inputs.mistakes import collecting
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.testing.small_processor import small_processor

ONE = "[{{ m.role }}]{{ m.content }}"
ASKS = "{% if add_generation_prompt %}[assistant]{% endif %}"
SAYS_ROLES = "{% for m in messages %}" + ONE + "{% endfor %}" + ASKS
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + SAYS_ROLES
DROPS = SAYS_ROLES.replace(ONE, "{% if m.role != 'system' %}" + ONE + "{% endif %}")


def sample(system: str = "", **values: object) -> Sample:
    turns = (Turn("one", "two"), Turn("three", "four"))
    arguments: dict = {"id": "s", "image": None, "image_id": "", "turns": turns, "tasks": ("t", "t"), "source": "f:1"}
    return Sample(**(arguments | {"system": system} | values))


def form_of(text: str) -> ChatForm:
    return ChatForm(small_processor(8).tokenizer, ChatTemplate(text, "here"))


def written(form: object, system: str, images: tuple[int, ...] = ()) -> str:
    return "".join(piece.text for piece in form.pieces(sample().turns, images, system))


def test_it_takes_the_place_of_vicunas_own() -> None:
    form = template_named("vicuna_v1")
    assert written(form, "Be brief.") == "Be brief. USER: one ASSISTANT: two</s>USER: three ASSISTANT: four</s>"
    assert form.pieces(sample().turns, (), "Be brief.")[0].span == Span.SYSTEM
    assert written(form, "").startswith("A chat between a curious user")


def test_it_is_the_message_of_a_models_own_template() -> None:
    form = form_of(SAYS_ROLES)
    assert written(form, "Be brief.") == "[system]Be brief.[user]one[assistant]two</s>[user]three[assistant]four</s>"
    assert "system" not in written(form, "")
    assert written(form, "Be brief.").replace("Be brief", "Be long") == written(form, "Be long.")
    assert form.refuses_system("Be brief.") == ""


def test_it_is_what_the_library_writes() -> None:
    tokenizer, form = small_processor(8).tokenizer, form_of(SAYS_ROLES)
    tokenizer.chat_template = SAYS_ROLES
    messages = [{"role": "system", "content": "Be brief."}]
    for turn in sample().turns:
        messages += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert written(form, "Be brief.").replace("</s>", "") == whole


@pytest.mark.parametrize(("text", "reason"), [(NO_SYSTEM, "no system here"), (DROPS, "leaves the system text out")])
def test_a_template_that_does_not_write_it_refuses_it(text: str, reason: str) -> None:
    assert reason in form_of(text).refuses_system("Be brief.")


@pytest.mark.parametrize("name", ["plain", "mistral"])
def test_a_sample_with_one_is_named_where_there_is_no_place(name: str) -> None:
    found = BoundTemplate(name, template_named(name), (), (2,)).mistakes_in([sample(), sample("Be brief.")], True)
    assert [mistake.what for mistake in found] == ["sample s has a system text of its own: 'Be brief.'"]
    assert found[0].where == "f:1"
    with pytest.raises(BadInputError, match="has a system text of its own"):
        small_processor(8).encode_all([sample(), sample("Be brief.")], template_named("plain"))
    with pytest.raises(BadInputError, match="inside its text"):
        small_processor(8).encode_all([sample("Look: <image>")], template_named("vicuna_v1"))


def test_a_template_without_a_place_is_a_mistake_and_no_crash_where_mistakes_are_collected() -> None:
    name = "gemma"
    with collecting() as found:
        ready = small_processor(8)
        ready.bound_templates[template_named(name)] = BoundTemplate(name, template_named(name), (), (2,))
        ready.encode_all([sample(), sample("Be brief.")], template_named(name))
    assert [mistake.what for mistake in found] == ["sample s has a system text of its own: 'Be brief.'"]


def test_pictures_stand_in_the_turns_that_show_them() -> None:
    processor = small_processor(8)
    shown = sample(image="a", further_images=("b", "c"), shown_in_turns=(1, 2))
    assert shown.images == ("a", "b", "c")
    text = processor.encode(shown, template_named("vicuna_v1"))
    marks = (text.input_ids == IMAGE_TOKEN_ID).nonzero()[0]
    answers = (text.spans == Span.ANSWER).nonzero()[0]
    first_answer = answers[0]
    assert [bool(mark > first_answer) for mark in marks] == [False, True, True]


def test_both_count_to_the_fingerprint_and_keep_samples_apart(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    values: dict = {"image": tmp_path / "a.png", "image_id": "a"}
    one, other = sample(**values), sample(**values, id="other")
    first = items_fingerprint([one])
    assert first != items_fingerprint([sample("Be brief.", **values)])
    twice = {**values, "further_images": (tmp_path / "a.png",)}
    assert items_fingerprint([sample(**twice)]) != items_fingerprint([sample(**twice, shown_in_turns=(1, 1))])
    assert len(join_conversations([one, other], 2)) == 1
    assert len(join_conversations([one, sample("Be brief.", **values, id="other")], 2)) == 2
    shown = [sample(**twice, shown_in_turns=(1, 1), id=name) for name in "ab"]
    assert len(join_conversations(shown, 2)) == 2
