"""Conversations in a model's own chat template: which letters are a question's, an answer's, the template's.

What a template writes up to an answer need not be the beginning of what it writes up to the next one (thoughts kept in
the last turn only, system text moved into it). So a whole conversation is written once with a mark in place of every
text; between the marks stand the template's own words. For each conversation its texts are put in place of the marks,
and the result must be what the template writes for the conversation itself.
"""

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.chat_template import DAY, ChatRenderer, ChatTemplate
from lightning_m2pt.inputs.render_limits import CPU_SECONDS, ends_soon
from lightning_m2pt.inputs.samples import Turn
from lightning_m2pt.inputs.templates import IMAGE_MARK, Piece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

OPEN, CLOSE = "\uf8f0", "\uf8f1"
"""Letters around marks, of Unicode's private use: texts have none, and templates neither change nor trim them."""
PICTURE = f"{OPEN}picture{CLOSE}"
QUESTION, ANSWER = "question", "answer"
ONE_IMAGE = (1,)

Content: TypeAlias = Literal["parts", "text"]
"""A message's content: a list with a part for each picture and one of text, or one text with marks for pictures."""


@dataclass(frozen=True)
class Shape:
    """What the template's words in a conversation depend on, beside the texts.

    Attributes:
        turns: Number of turns.
        images: How many images each of the first turns shows.
        goes_on: The last answer is left for the model to give.
    """

    turns: int
    images: tuple[int, ...]
    goes_on: bool

    def image_count(self, turn: int) -> int:
        """Returns how many images a turn shows."""
        return self.images[turn] if turn < len(self.images) else 0

    def kinds(self) -> list[str]:
        """Returns what the texts are, in order: questions and answers."""
        found = [QUESTION, ANSWER] * self.turns
        return found[:-1] if self.goes_on else found

    def marked_turns(self) -> list[Turn]:
        """Returns turns of marks."""
        return [Turn(mark(QUESTION, turn), mark(ANSWER, turn)) for turn in range(self.turns)]

    def texts(self, turns: Sequence[Turn]) -> list[str]:
        """Returns the texts of turns in order; not the answer that the model has to give."""
        found = [text for turn in turns for text in (turn.question, turn.answer)]
        return found[:-1] if self.goes_on else found


def mark(kind: str, turn: int) -> str:
    """Returns what stands in place of a text."""
    return f"{OPEN}{kind} {turn}{CLOSE}"


class ChatForm:
    """The conversations of one model's chat template.

    Args:
        tokenizer: The model's.
        template: Its chat template.
        system: Text of a system's message in front of every conversation; empty leaves the message out.

    Attributes:
        content: The form of contents that the template takes.
        end_of_turn: The token that ends an answer.
        writes_end: Whether the template writes it. If not, the tokenizer's end token is put behind every answer.
        lead: The white space between where the model goes on and an answer; it belongs to the answer.
        lacks_begin: Whether the library puts the tokenizer's begin token in front.
        control: What no text may hold: the special tokens and others that the template writes.

    Raises:
        BadInputError: If the template is none, does not end, or does not write each text once and in order.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", template: ChatTemplate, system: str = "") -> None:
        self.template = template
        self.system = system
        self.renderer = ChatRenderer(tokenizer, template)
        self.words: dict[Shape, list[str]] = {}
        self.with_systems: dict[str, ChatForm] = {}
        begin, end = template.image_around
        self.image_token = begin + template.image_token + end or PICTURE
        self._refuse_endless()
        first: Content = "parts" if template.image_token else "text"
        try:
            self.content = self._content_form(first)
        except BadInputError:
            if not begin + end:
                raise
            self.image_token = template.image_token  # it leaves what stands around a picture to the layout
            self.content = self._content_form(first)
            self._refuse_other_tokens_around(begin, end, added_tokens(tokenizer))
        self.control = control_tokens(tokenizer, template.text + template.image_token)
        tail = self.words_of(Shape(1, ONE_IMAGE, goes_on=False))[-1]
        found = re.match(rf"\s*({alternatives(added_tokens(tokenizer)).pattern})", tail)
        self.writes_end = found is not None
        self.end_of_turn = found[1] if found else str(tokenizer.eos_token)
        self.lead = self._lead()
        bos, words = tokenizer.bos_token, self.words_of(Shape(1, (), goes_on=False))[0]
        self.lacks_begin = template.of_processor and not (bos and words.startswith(str(bos)))

    def _refuse_endless(self) -> None:
        """Tries the template where it can take little, before it runs in this process."""
        contents: tuple[Content, ...] = ("parts", "text")

        def try_all() -> None:
            for content in contents:
                self.content = content
                for goes_on in (False, True):
                    with suppress(BadInputError):
                        self._render(Shape(3, ONE_IMAGE, goes_on))

        if not ends_soon(try_all):
            raise self.renderer.refusal(f"it does not end within {CPU_SECONDS} seconds, or takes a GiB of memory")

    def _content_form(self, first: Content) -> Content:
        """Returns the form of contents that the template takes; raises why it refuses the first, if it takes none."""
        self.content = first
        try:
            self.words_of(Shape(1, ONE_IMAGE, goes_on=False))
        except BadInputError as refused:
            self.content = "text" if first == "parts" else "parts"
            try:
                self.words_of(Shape(1, ONE_IMAGE, goes_on=False))
            except BadInputError:
                raise refused from None
        return self.content

    def _refuse_other_tokens_around(self, begin: str, end: str, added: Iterable[str]) -> None:
        """Refuses a template that writes a picture between other tokens than its layout has: each would have both."""
        words, tokens = "".join(self.words_of(Shape(1, ONE_IMAGE, goes_on=False))), alternatives(added).pattern
        before, behind = words.split(self.image_token, 1)
        first, last = re.search(rf"(?:{tokens})\Z", before), re.match(tokens, behind)
        found = first[0] if first else "", last[0] if last else ""
        if all(found) or found[0] == begin or found[1] == end:
            written = f"{found[0]}{self.image_token}{found[1]}"
            wanted = f"{begin}{self.image_token}{end}"
            raise self.renderer.refusal(f"it writes {written}, and the model's configuration says {wanted}")

    def _lead(self) -> str:
        before, asked = self._before_answer(1)
        between = before[len(asked) :] if before.startswith(asked) else ""
        return between if between.isspace() else ""

    def _before_answer(self, turns: int) -> tuple[str, str]:
        """Returns what stands before the last answer, and what stands there when the model has to give it."""
        whole, asked = (self._render(Shape(turns, ONE_IMAGE, goes_on)) for goes_on in (False, True))
        return whole.partition(mark(ANSWER, turns - 1))[0], asked

    def notices(self) -> Iterator[str]:
        """Yields what is worth knowing of the template, a sentence each."""
        for turns in (1, 3):
            before, asked = self._before_answer(turns)
            if before != asked + self.lead:
                same = equal_letters(before, asked)
                yield (
                    "the model's chat template asks otherwise than it writes what was answered: asked behind "
                    f"{asked[same:]!r:.60}, tuned behind {before[same:]!r:.60}"
                )
                break
        if not self.writes_end:
            yield f"the model's chat template ends no answer: {self.end_of_turn} is put behind each"
        if self.renderer.day.is_asked:
            yield f"the model's chat template asks for the date: it reads {DAY:%d %B %Y} on every day"

    def with_system(self, system: str) -> "ChatForm":
        """Returns the form of conversations with another system text."""
        if system not in self.with_systems:
            other = copy.copy(self)
            other.system, other.words = system, {}
            self.with_systems[system] = other
        return self.with_systems[system]

    def refuses_system(self, system: str) -> str:
        """Returns why a conversation cannot have a system text of its own; empty if it can."""
        try:
            words = self.with_system(system).words_of(Shape(1, (), goes_on=False))
        except BadInputError as error:
            return error.what
        return "" if system in words[0] else "it leaves the system text out, or changes it"

    def pieces(self, turns: Sequence[Turn], images: Sequence[int] = ONE_IMAGE, system: str = "") -> list[Piece]:
        """Renders a conversation.

        Args:
            turns: Questions with their answers, whose outer white space is left out. The last answer may be empty:
                then the text ends where the model has to go on.
            images: How many images each of the first turns shows; turns behind them show none.
            system: What the system's message says instead of the form's text; empty leaves that.

        Returns:
            Pieces in order. What the template writes before the first question or picture is the system's. Answers
            have the token that ends them, and the white space before it.

        Raises:
            BadInputError: If there is no turn, an answer is missing anywhere but at the end, or the template does not
                write the texts as they are.
        """
        if system not in ("", self.system):
            return self.with_system(system).pieces(turns, images)
        if not turns:
            raise BadInputError("a conversation without a question", expected="at least one question")
        turns = [Turn(turn.question, turn.answer.strip()) for turn in turns]
        if not all(turn.answer for turn in turns[:-1]):
            raise BadInputError("an answer is missing before the last question", expected="one answer a question")
        if len(images) > len(turns):
            raise ValueError(f"images of {len(images)} turns, where there are {len(turns)}")
        shape = Shape(len(turns), tuple(images), goes_on=not turns[-1].answer)
        whole = self._render(shape, turns)
        words, kinds = self.words_of(shape), shape.kinds()
        for asked in (turns, [Turn(turn.question.strip(), turn.answer) for turn in turns]):
            texts = shape.texts(asked)
            if joined(words, texts) == whole:
                return self._marked(words, texts, kinds)
        return self._pieces_of_answers(turns, shape, whole)

    def _pieces_of_answers(self, turns: Sequence[Turn], shape: Shape, whole: str) -> list[Piece]:
        """Renders a conversation whose questions change the template's words: only answers are marked."""
        rendered = self._render(shape, [Turn(turn.question, mark(ANSWER, at)) for at, turn in enumerate(turns)])
        answers = [turn.answer for turn in turns if turn.answer]
        words = self._between(rendered, [mark(ANSWER, turn) for turn in range(len(answers))])
        if (made := joined(words, answers)) != whole:
            same = equal_letters(made, whole)
            raise BadInputError(
                f"the chat template changes a text: {made[same:]!r:.60} becomes {whole[same:]!r:.60}",
                where=self.template.source,
                expected="a template that writes answers as they are",
                hint="leave the sample out, or take another template",
            )
        system = self.words_of(shape)[0]
        first = words[0].removeprefix(system)
        words = [words[0][: len(words[0]) - len(first)], first, *words[1:]]
        return self._marked(words, ["", *answers], [QUESTION, *[ANSWER] * len(answers)])

    def _marked(self, words: Sequence[str], texts: Sequence[str], kinds: Sequence[str]) -> list[Piece]:
        """Returns a conversation as pieces.

        Args:
            words: The template's, one more than texts.
            texts: What stands between them.
            kinds: Of each text, whether it is a question or an answer.
        """
        pieces: list[Piece] = []
        for place, own in enumerate(words):
            if place > 0 and kinds[place - 1] == ANSWER:
                end, own = self._split_at_end(own)
                pieces.append(Piece(texts[place - 1] + end, Span.ANSWER))
            elif place > 0:
                own = texts[place - 1] + own
            lead = self.lead if kinds[place : place + 1] == [ANSWER] and own.endswith(self.lead) else ""
            pieces += self._with_images(own.removesuffix(lead), Span.QUESTION if place else Span.SYSTEM)
            pieces.append(Piece(lead, Span.ANSWER))
        return [piece for piece in pieces if piece.text]

    def _split_at_end(self, words: str) -> tuple[str, str]:
        """Returns what ends the answer before the template's words, and the words without it."""
        if not self.writes_end:
            return self.end_of_turn, words
        end = re.match(rf"\s*{re.escape(self.end_of_turn)}", words)
        return (end[0], words[end.end() :]) if end else ("", words)

    def _with_images(self, text: str, span: Span) -> Iterator[Piece]:
        """Yields a text's pieces; behind a picture it is the question's."""
        first, *others = text.split(self.image_token)
        yield Piece(first, span)
        for other in others:
            yield Piece(self.template.image_token or IMAGE_MARK, Span.IMAGE)
            yield Piece(other, Span.QUESTION)

    def words_of(self, shape: Shape) -> list[str]:
        """Returns the template's words before, between and behind the texts of a conversation.

        Raises:
            BadInputError: If a text or a picture is not written, or not once and in order.
        """
        if shape not in self.words:
            words = self._between(self._render(shape), shape.texts(shape.marked_turns()))
            pictures = sum(text.count(self.image_token) for text in words)
            if pictures != sum(shape.images):
                raise self.renderer.refusal(f"it writes {pictures} pictures of {sum(shape.images)}")
            self.words[shape] = words
        return self.words[shape]

    def _between(self, text: str, marks: Sequence[str]) -> list[str]:
        words = []
        for each in marks:
            before, found, text = text.partition(each)
            if not found:
                raise self.renderer.refusal(f"it leaves out a text, or changes the order: {each[1:-1]}")
            words.append(before)
        words.append(text)
        if any(OPEN in text.replace(PICTURE, "") for text in words):
            raise self.renderer.refusal("it writes a text twice")
        return words

    def _render(self, shape: Shape, turns: Sequence[Turn] = ()) -> str:
        """Returns what the template writes for turns, or for marks if there are none."""
        messages = [{"role": "system", "content": self._content(self.system, 0)}] if self.system else []
        for number, turn in enumerate(turns or shape.marked_turns()):
            messages.append({"role": "user", "content": self._content(turn.question, shape.image_count(number))})
            messages.append({"role": "assistant", "content": self._content(turn.answer, 0)})
        return self.renderer.render(messages[:-1] if shape.goes_on else messages, shape.goes_on)

    def _content(self, text: str, images: int) -> Any:  # noqa: ANN401  (a text, or a list of mappings)
        if self.content == "parts" and self.template.image_token:
            return [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]
        text = f"{self.image_token}\n" * images + text
        return [{"type": "text", "text": text}] if self.content == "parts" else text


def joined(words: Sequence[str], texts: Sequence[str]) -> str:
    """Returns words with texts between them."""
    return "".join(text for pair in zip(words, [*texts, ""], strict=True) for text in pair)


def added_tokens(tokenizer: "PreTrainedTokenizerFast") -> list[str]:
    """Returns the tokens that are read before all others, special ones among them, but no mere white space."""
    return [text for text in tokenizer.added_tokens_encoder if text.strip()]


def control_tokens(tokenizer: "PreTrainedTokenizerFast", written: str) -> re.Pattern[str]:
    """Returns a pattern of what no question and no answer may hold: signs of the model, and the letters of our marks.

    Args:
        tokenizer: The model's: all its special tokens count.
        written: The template's own text: other added tokens count if it writes them.
    """
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    signs = [text for text in added_tokens(tokenizer) if text in special or text in written]
    return alternatives([*signs, OPEN, CLOSE])


def equal_letters(first: str, second: str) -> int:
    """Returns with how many letters two texts begin alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))


def alternatives(texts: Iterable[str]) -> re.Pattern[str]:
    """Returns a pattern that finds any of some texts, the longest first; without texts nothing."""
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or "(?!)")
