"""A conversation with a tuned model: questions that follow each other, about one picture or about none."""

from collections.abc import Iterator, Sequence

from lightning_m2pt.application.asked import Picture, picture_source, refuse_unless_count, refuse_unless_question
from lightning_m2pt.application.shared_base import SharedBase, Tuned
from lightning_m2pt.application.streaming import MAX_NEW_TOKENS, LastRead, streamed_answer
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.collate import Collator, EncodedSample, joined_pictures, with_layouts
from lightning_m2pt.inputs.encoded_text import EncodedText
from lightning_m2pt.inputs.images import check_image
from lightning_m2pt.inputs.picture_layout import PreparedPicture
from lightning_m2pt.inputs.samples import ImageSource, Sample, Turn
from lightning_m2pt.tuning.positions import room_for_rows, run_rows

BEGIN_ANEW = "reset() begins anew"


class Chat:
    """One conversation; ``Model.chat`` begins one.

    What the model reads is the conversation as training would render it, in the template's own form of several turns.
    Rows that were read before are kept: a turn runs its own words alone, and never the picture again. A chat is for one
    caller at a time; other chats and questions may be answered in between.

    Args:
        base: The base.
        tuned: Who answers, from the first turn to the last.
        image: What the conversation is about, shown with its first question; None: nothing is shown.

    Raises:
        BadInputError: If the picture is none.
    """

    def __init__(self, base: SharedBase, tuned: Tuned, image: Picture | None) -> None:
        self._base, self._tuned = base, tuned
        self._turns: tuple[Turn, ...] = ()
        self._last = LastRead()
        self._picture: tuple[ImageSource, PreparedPicture] | None = None
        self._answer: Iterator[str] = iter(())
        self.show(image)

    @property
    def history(self) -> tuple[Turn, ...]:
        """The turns so far, each a ``question`` with its ``answer``.

        A question that was answered with nothing, or not at all, is none of them: no template has a form for it. An
        answer that was stopped is in it as far as it came.
        """
        return self._turns

    def reset(self) -> None:
        """Forgets all turns; the picture stays."""
        self._end_answer()
        self._turns, self._last.kept = (), None

    def show(self, image: Picture | None) -> None:
        """Begins anew with another picture, or with none.

        Raises:
            BadInputError: If it is no picture; the conversation is then as it was.
        """
        base = self._base
        picture = None
        if image is not None:
            with base.to_itself():
                source, _ = picture_source(image, "image")
                check_image(source, "image")
                base.processor.check_picture(source, "image")
                picture = source, base.processor.pictures([source], "image")[0]
        self.reset()
        self._picture = picture

    def say(self, text: str, *, max_new_tokens: int = MAX_NEW_TOKENS) -> str:
        """Returns the answer to the next question; see ``stream``."""
        return "".join(self.stream(text, max_new_tokens=max_new_tokens))

    def stream(self, text: str, *, max_new_tokens: int = MAX_NEW_TOKENS) -> Iterator[str]:
        """Returns the answer to the next question piece by piece.

        Whoever stops reading closes the answer, and so does the next question: the conversation goes on behind what was
        given.

        Args:
            text: The question.
            max_new_tokens: Limit on the answer's tokens, the end token included.

        Raises:
            BadInputError: If the question is empty, cannot be asked in this template, or leaves no room for the answer.
                The conversation is then as it was.
        """
        refuse_unless_count(max_new_tokens, "max_new_tokens")
        refuse_unless_question(text, "question")
        self._end_answer()
        with self._base.to_itself():
            batch = self._batch(text, max_new_tokens)
        self._answer = self._answered(text, batch, max_new_tokens)
        return self._answer

    def _answered(self, text: str, batch: Batch, max_new_tokens: int) -> Iterator[str]:
        """Yields the answer, and makes a turn of what was given of it."""
        given = ""
        before = self._turns
        try:
            for piece in streamed_answer(self._base, self._tuned, batch, self._last, max_new_tokens):
                given += piece
                yield piece
        except Exception:
            given = ""  # half an answer of a model that fails is no answer
            raise
        finally:
            if given:
                self._turns = (*before, Turn(text, given))

    def _end_answer(self) -> None:
        """Closes an answer that was not read to its end.

        Raises:
            BadInputError: If another thread is reading it.
        """
        try:
            close = getattr(self._answer, "close", None)
            if close is not None:
                close()
        except ValueError as error:  # Python's, of a generator that runs
            raise BadInputError(
                "the answer before is still being given",
                where="chat",
                expected="one question at a time",
                hint="every thread may have a chat of its own",
            ) from error

    def _batch(self, text: str, max_new_tokens: int) -> Batch:
        """Returns the conversation with its next question.

        Raises:
            BadInputError: If it cannot be put into the template, or is too long.
        """
        encoded = self._encoded(text)
        processor, pictures = self._base.processor, [] if self._picture is None else [self._picture[1]]
        pixels, sizes = joined_pictures(pictures, processor)
        shape, method = self._base.backbone.shape, self._tuned.method
        rows, room = run_rows(shape, method), room_for_rows(shape, method) - max_new_tokens
        found = len(encoded) + sum(rows.of(picture.layout) - 1 for picture in pictures)
        if found > room:
            raise BadInputError(
                f"the conversation has {found:,} rows with this question",
                where="chat",
                expected=f"at most {max(0, room):,}, {max_new_tokens:,} for the answer behind them: "
                f"{shape.end_of_positions}",
                hint=f"{BEGIN_ANEW}; or a shorter question, or lower max_new_tokens",
            )
        sample = EncodedSample(with_layouts(encoded, pictures), pixels, "chat", ("",), sizes, len(pictures))
        batch = Collator(processor.pad_token_id)([sample])
        assert isinstance(batch, Batch)
        return batch

    def _encoded(self, text: str) -> EncodedText:
        """Returns the tokens of all turns and the next question.

        Raises:
            BadInputError: If a text cannot be put into the template.
        """
        try:
            return self._encoded_turns([*self._turns, Turn(text)])
        except BadInputError as error:
            self._encoded_turns([Turn(text)])  # refused by what the question itself has, if it is the question
            raise BadInputError(error.what, where="chat", expected=error.expected, hint=BEGIN_ANEW) from error

    def _encoded_turns(self, turns: Sequence[Turn]) -> EncodedText:
        shown = None if self._picture is None else self._picture[0]
        sample = Sample("chat", shown, "", tuple(turns), ("",) * len(turns), "question")
        return self._base.processor.encode(sample, self._tuned.template, with_answers=False)
