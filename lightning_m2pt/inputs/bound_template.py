"""A conversation template together with one tokenizer: what it writes, where texts begin, and what ends an answer."""

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.chat_form import ChatForm, control_tokens
from lightning_m2pt.inputs.chat_template import ChatTemplate
from lightning_m2pt.inputs.named_templates import (
    NATIVE,
    PUBLISHED,
    NativeTemplate,
    RewordedTemplate,
    Template,
    shipped_names,
)
from lightning_m2pt.inputs.reworded_template import RewordedForm, WritesConversations, refuse_unreadable
from lightning_m2pt.inputs.samples import Sample
from lightning_m2pt.inputs.written_template import SYSTEM_MARK, WrittenTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class BoundTemplate:
    """A template bound to a tokenizer.

    Attributes:
        name: The template's.
        form: Writes conversations.
        begin_ids: Tokens in front of every conversation that the form does not write.
        end_token_ids: The token that ends an answer and is supervised with it, then others at which the model stops.
        image_token: The token that the form writes for a picture; empty where pictures part the text.
        control: What no question and no answer may hold; None where texts are read as they are, special tokens too, as
            in the published preprocessing.
        digest: SHA-256 of what decides the form and is named nowhere else; empty for the published templates.
        notices: What is worth knowing, a sentence each.
    """

    name: str
    form: WritesConversations
    begin_ids: tuple[int, ...]
    end_token_ids: tuple[int, ...]
    image_token: str = ""
    control: re.Pattern[str] | None = None
    digest: str = ""
    notices: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name, with the beginning of the digest where the name does not say everything."""
        return labelled(self.name, self.digest)

    def mistakes_in(self, samples: Sequence[Sample], with_answers: bool) -> list[BadInputError]:
        """Returns the conversations with tokens in their texts that would steer the model, or with a blank answer.

        Args:
            samples: Conversations.
            with_answers: Whether the last answers are there, too.
        """
        mistakes = self.mistakes_in_systems(samples)
        if self.control is None:
            return mistakes
        for sample in samples:
            if with_answers and not all(turn.answer.strip() for turn in sample.turns):
                blank = f"sample {sample.id} has an answer of nothing but white space"
                mistakes.append(BadInputError(blank, where=sample.source, expected="an answer"))
            texts = (text for turn in sample.turns for text in (turn.question, turn.answer))
            found = self.control.search("\n".join((*texts, sample.system)))
            if found is not None:
                mistakes.append(
                    BadInputError(
                        f"sample {sample.id} has {found[0]!r:.40} inside its text, a sign of the template",
                        where=sample.source,
                        expected=f"texts without the special tokens that the template {self.name} writes",
                        hint="leave the sample out, or write the word otherwise",
                    )
                )
        return mistakes

    def mistakes_in_systems(self, samples: Sequence[Sample]) -> list[BadInputError]:
        """Returns the conversations whose own system text has no place in the template."""
        reasons = {system: self.form.refuses_system(system) for system in {each.system for each in samples} if system}
        return [
            BadInputError(
                f"sample {sample.id} has a system text of its own: {sample.system!r:.60}",
                where=sample.source,
                expected=f"none: the template {self.name} cannot take it, because {reasons[sample.system]}",
                hint="take one that does, as vicuna_v1, chatml or the model's own (native), or leave the record out",
            )
            for sample in samples
            if reasons.get(sample.system)
        ]


def labelled(name: str, digest: str | None) -> str:
    """Returns a template's name with the beginning of its digest, if it has one."""
    return f"{name} ({digest[:8]})" if digest else name


def bound(
    template: Template,
    tokenizer: "PreTrainedTokenizerFast",
    begin_ids: Sequence[int],
    chat_template: ChatTemplate | None,
) -> BoundTemplate:
    """Binds a template to a tokenizer.

    Args:
        template: The template.
        tokenizer: It has an end token.
        begin_ids: What the tokenizer begins its texts with.
        chat_template: The model's own; None where it has none.

    Raises:
        BadInputError: If the model's own template is asked for and there is none, or it cannot be used, or what ends
            an answer is no token.
    """
    if isinstance(template, RewordedTemplate):
        return reworded(template, tokenizer, bound(template.base, tokenizer, begin_ids, chat_template))
    if isinstance(template, NativeTemplate):
        if chat_template is None:
            raise BadInputError(
                "the model has no chat template",
                where=f"template: {template.name}",
                expected=", ".join([*(each.name for each in PUBLISHED), *shipped_names()]),
                hint=f"take what the model was tuned with, or a YAML file; looked for in {tokenizer.name_or_path}",
            )
        return native(template, tokenizer, begin_ids, chat_template)
    other = f"conversations are written in {template.name}; the model has a chat template of its own: {NATIVE.name}"
    notices = (other,) if chat_template is not None else ()
    if isinstance(template, WrittenTemplate):
        return replace(written(template, tokenizer, begin_ids), notices=notices)
    return BoundTemplate(
        name=template.name,
        form=replace(template, end_of_answer=str(tokenizer.eos_token)),
        begin_ids=tuple(begin_ids),
        end_token_ids=(int(tokenizer.eos_token_id),),
        notices=notices,
    )


def written(template: WrittenTemplate, tokenizer: "PreTrainedTokenizerFast", begin_ids: Sequence[int]) -> BoundTemplate:
    """Binds a template of a file; see ``bound``.

    Raises:
        BadInputError: If what ends an answer is no single token of the tokenizer, or a begin token is written before
            some conversations only.
    """
    end = template.end_of_answer or str(tokenizer.eos_token)
    ids = tokenizer(end.strip(), add_special_tokens=False)["input_ids"]
    added = [text for text in tokenizer.added_tokens_encoder if text.strip()]
    if len(ids) != 1 or end.strip() not in added:
        raise BadInputError(
            f"the end of answers {end!r:.40} is no special token of the tokenizer",
            where=f"template {template.name}: end_of_answer",
            expected=f"one of {', '.join(added)[:200]}",
            hint="leave the key out: then the tokenizer's own end token ends answers",
        )
    form = replace(template, end_of_answer=end)
    has_begin = begins_with(form.system, tokenizer.bos_token)
    if form.own_system and begins_with(form.own_system, tokenizer.bos_token) != has_begin:
        raise BadInputError(
            f"one of system and own_system begins with {tokenizer.bos_token}, the other does not",
            where=f"template {template.name}: own_system",
            expected="both with the tokenizer's begin token, or none",
        )
    return BoundTemplate(
        name=template.name,
        form=form,
        begin_ids=() if has_begin else tuple(begin_ids),
        end_token_ids=tuple(dict.fromkeys([int(ids[0]), int(tokenizer.eos_token_id)])),
        control=control_tokens(tokenizer, "".join(astuple(template)[1:]).replace(SYSTEM_MARK, "")),
        digest=template.digest(),
    )


def reworded(template: RewordedTemplate, tokenizer: "PreTrainedTokenizerFast", base: BoundTemplate) -> BoundTemplate:
    """Binds a template with a prompt's words; see ``bound``.

    Args:
        template: The template.
        tokenizer: The model's.
        base: What the words are written on top of, bound.

    Raises:
        BadInputError: If the words cannot be read as words, or there is a system text where the base has no place for
            one.
    """
    text = template.text
    refuse_unreadable(text, tokenizer, template.name)
    written_by_base = base.control.search(f"{text.question}\n{text.system}") if base.control else None
    if written_by_base is not None:
        raise BadInputError(
            f"{written_by_base[0]!r:.40} stands in the text, a sign of the template",
            where=f"prompt text {template.name}",
            expected="words: the template writes the signs",
        )
    reason = base.form.refuses_system(text.system) if text.system else ""
    if reason:
        raise BadInputError(
            f"the template {base.name} cannot take a system text: {reason}",
            where=f"prompt text {template.name}: system",
            expected="none, or a template that takes one, as vicuna_v1, chatml or the model's own (native)",
        )
    return replace(
        base,
        name=template.name,
        form=RewordedForm(base.form, text),
        digest=text.digest(base.digest or base.name),
    )


def begins_with(text: str, token: object) -> bool:
    """Tells whether a text begins with a tokenizer's begin token, if there is one."""
    return token is not None and text.startswith(str(token))


def native(
    template: NativeTemplate,
    tokenizer: "PreTrainedTokenizerFast",
    begin_ids: Sequence[int],
    chat_template: ChatTemplate,
) -> BoundTemplate:
    """Binds a model's own chat template; see ``bound``."""
    form = ChatForm(tokenizer, chat_template, template.system)
    ends = [int(tokenizer.convert_tokens_to_ids(form.end_of_turn)), int(tokenizer.eos_token_id)]
    return BoundTemplate(
        name=template.name,
        form=form,
        begin_ids=tuple(begin_ids) if form.lacks_begin else (),
        end_token_ids=tuple(dict.fromkeys([*ends, *chat_template.other_end_token_ids])),
        image_token=chat_template.image_token,
        control=form.control,
        digest=chat_template.digest(template.system),
        notices=tuple(form.notices()),
    )
