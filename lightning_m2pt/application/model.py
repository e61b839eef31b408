"""A tuned model in a program of one's own: it answers, compares candidates, and takes further adapters."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lightning_m2pt.answering.decoding import Answer, Answering, GreedyAnswering, LikelihoodAnswering
from lightning_m2pt.answering.likelihood import tokenised_candidates
from lightning_m2pt.application.asked import (
    AskedQuestions,
    Picture,
    asked_questions,
    batches_of,
    refuse_beyond_positions,
    refuse_half_letters,
    refuse_unless_count,
)
from lightning_m2pt.application.chat import Chat
from lightning_m2pt.application.shared_base import SharedBase, Tuned
from lightning_m2pt.application.sources import named_source, tuned_by
from lightning_m2pt.application.streaming import MAX_NEW_TOKENS, LastRead, streamed_answer
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.named_templates import Template
from lightning_m2pt.tuning.positions import room_for_rows, run_rows

DEFAULT_NAME = "default"
"""What the adapter that a model was loaded with is called, as in peft."""
BATCH_SIZE = 8


class Model:
    """A frozen base with one or several adapters, of which one answers; ``lightning_m2pt.load`` makes one.

    Answers are those of ``m2pt evaluate``: the same template, pictures, passes and end tokens. A model may be asked
    from several threads, which take turns. Seeds, modes and default types of the process stay as they are.

    Args:
        base: The base; other models may stand on it, too.
        tuned: The adapters by name, loaded.
        name: Which of them answers.
    """

    def __init__(self, base: SharedBase, tuned: Mapping[str, Tuned], name: str) -> None:
        self._base = base
        self._tuned = dict(tuned)
        self._name = name
        self._last = LastRead()

    def __repr__(self) -> str:
        """Says what answers: the adapter's name and method, the base, its type and device; what else there is."""
        backbone, method = self._base.backbone, self._tuned[self._name].method
        others = "".join(f", also {name!r}" for name in self._tuned if name != self._name)
        place = f"{type(backbone).__name__} in {backbone.dtype_name}, {self._base.device}"
        return f"<lightning_m2pt.Model {self._name!r}: {method.name} on {place}{others}>"

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters' names, in the order in which they came."""
        return tuple(self._tuned)

    @property
    def name(self) -> str:
        """The name of the adapter that answers."""
        return self._name

    @property
    def template(self) -> Template:
        """The conversation form that questions are put into: the one that the adapter was tuned with."""
        return self._tuned[self._name].template

    @property
    def revision(self) -> str | None:
        """The commit of the hub's repository that the adapter came from; None for one that is no fetched one."""
        return self._tuned[self._name].commit

    def ask(self, image: Picture, question: str, *, max_new_tokens: int = MAX_NEW_TOKENS) -> str:
        """Returns the greedy answer to a question about a picture.

        What a question has in common with the one before, as the picture, is not computed again.

        Args:
            image: A file's path, a picture of Pillow, or an array (H, W, 3) of uint8.
            question: The question's text alone: the template and the picture's place come with the adapter.
            max_new_tokens: Limit on the answer's tokens, the end token included.

        Raises:
            BadInputError: If the picture is none, the question is empty or too long, or an argument is wrong.
        """
        return "".join(self.stream(image, question, max_new_tokens=max_new_tokens))

    def stream(self, image: Picture, question: str, *, max_new_tokens: int = MAX_NEW_TOKENS) -> Iterator[str]:
        """Returns the answer of ``ask`` piece by piece: whole characters, which join to it.

        Question and picture are looked at before it returns. Whoever stops reading has stopped the model.

        Args:
            image: As ``ask`` takes it.
            question: As ``ask`` takes it.
            max_new_tokens: Limit on the answer's tokens, the end token included.

        Raises:
            BadInputError: As ``ask`` does.
        """
        refuse_unless_count(max_new_tokens, "max_new_tokens")
        tuned, base = self._tuned[self._name], self._base
        asked = self._asked(tuned, [(image, question)], max_new_tokens, is_one=True)
        with base.to_itself():
            batch = next(batches_of(asked, base.processor, 1, by_picture=False))
        assert isinstance(batch, Batch)
        return streamed_answer(base, tuned, batch, self._last, max_new_tokens)

    def chat(self, image: Picture | None = None) -> Chat:
        """Begins a conversation with the adapter that answers now.

        Args:
            image: What it is about, as ``ask`` takes it; None: about no picture.

        Raises:
            BadInputError: If the picture is none.
        """
        return Chat(self._base, self._tuned[self._name], image)

    def ask_all(
        self,
        questions: Iterable[tuple[Picture, str]],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = BATCH_SIZE,
    ) -> list[str]:
        """Returns the greedy answer to every question; a picture with several questions is read and computed once.

        Args:
            questions: Pictures and texts, as ``ask`` takes them. All are looked at before the first is answered.
            max_new_tokens: Limit on an answer's tokens, the end token included.
            batch_size: Questions answered at once.

        Raises:
            BadInputError: If something is wrong with one of them; it is named by its number.
        """
        refuse_unless_count(max_new_tokens, "max_new_tokens")
        refuse_unless_count(batch_size, "batch_size")
        tuned = self._tuned[self._name]
        answers = self._answers(tuned, listed(questions), self._greedy(tuned, max_new_tokens), batch_size)
        return [answer.text for answer in answers]

    def score(self, image: Picture, question: str, candidates: Sequence[str]) -> dict[str, float]:
        """Returns how likely the model is to answer exactly each of several texts.

        Args:
            image: A file's path, a picture of Pillow, or an array (H, W, 3) of uint8.
            question: The question's text.
            candidates: Two or more different texts.

        Returns:
            For each candidate the natural logarithm of its probability, its end token included: what ``likelihood_sum``
            of ``m2pt evaluate --answer`` compares.

        Raises:
            BadInputError: If picture or question cannot be asked, or candidates are fewer than two or cannot be told
                apart.
        """
        refuse_unless_texts(candidates)
        tuned = self._tuned[self._name]
        with self._base.to_itself():
            known = tokenised_candidates(self._base.processor, tuned.template, candidates)
        answering = LikelihoodAnswering(known, "likelihood_sum")
        (answer,) = self._answers(tuned, [(image, question)], answering, 1, is_one=True)
        return dict(answer.log_probabilities)

    def frozen(self) -> "Model":
        """Returns the untouched model on the same weights: it answers the same questions in the same template.

        No second copy is loaded. Its answers are those of ``m2pt evaluate`` with an experiment that tunes nothing.
        """
        untouched = Tuned(self._base.untouched(), self.template)
        return Model(self._base, {untouched.method.name: untouched}, untouched.method.name)

    def add(
        self, name: str, source: str | os.PathLike[str], *, revision: str | None = None, fetch: bool = False
    ) -> None:
        """Loads another adapter onto the same base; ``use`` lets it answer.

        Args:
            name: What it is called from now on.
            source: A run's folder or an adapter's, as ``lightning_m2pt.load`` takes it.
            revision: Branch, tag or commit of an adapter of the hub.
            fetch: Whether the hub may be asked for it, as ``lightning_m2pt.load`` says.

        Raises:
            BadInputError: If the name is taken, or the adapter is of another base or damaged; the model is then as it
                was.
        """
        if not isinstance(name, str) or not name.strip():
            raise BadInputError(f"{name!r:.40} is no name", where="name", expected="a text")
        self._refuse_taken(name)
        named = named_source(source, revision, fetch)  # may wait for the hub, while others ask
        with self._base.to_itself():
            self._refuse_taken(name)
            self._tuned[name] = tuned_by(self._base, named)

    def use(self, name: str) -> None:
        """Lets an adapter answer from now on.

        Raises:
            BadInputError: If there is none of this name.
        """
        if not isinstance(name, str) or name not in self._tuned:
            raise BadInputError(
                f"no adapter is called {name!r:.40}", where="name", expected=f"one of {', '.join(self.names)}"
            )
        self._name = name

    def _refuse_taken(self, name: str) -> None:
        if name in self._tuned:
            expected = f"none of {', '.join(self.names)}"
            raise BadInputError(f"an adapter is called {name!r:.40} already", where="name", expected=expected)

    def _greedy(self, tuned: Tuned, max_new_tokens: int) -> GreedyAnswering:
        return GreedyAnswering(self._base.processor, max_new_tokens, tuned.template)

    def _answers(
        self,
        tuned: Tuned,
        questions: Sequence[tuple[Picture, str]],
        answering: Answering,
        batch_size: int,
        *,
        is_one: bool = False,
    ) -> list[Answer]:
        """Returns the answers in the order of the questions; ``use`` meanwhile changes nothing of them."""
        base = self._base
        asked = self._asked(tuned, questions, answering.most_tokens, is_one=is_one)
        found: dict[str, Answer] = {}
        with base.held(tuned) as backbone:
            shares_prefix = backbone.shares_prefix()
        batches = batches_of(asked, base.processor, batch_size, by_picture=shares_prefix)
        while len(found) < len(asked.samples):
            with base.held(tuned) as backbone:  # for one batch: others have their turn in between
                batch = next(batches).to(base.device)
                found.update(zip(batch.sample_ids, answering.answer(backbone, batch), strict=True))
        return [found[str(number)] for number in range(len(asked.samples))]

    def _asked(
        self, tuned: Tuned, questions: Sequence[tuple[Picture, str]], answer_tokens: int, *, is_one: bool
    ) -> AskedQuestions:
        """Returns questions that can be asked, and answered in so many tokens."""
        base, shape = self._base, self._base.backbone.shape
        with base.to_itself():
            asked = asked_questions(questions, base.processor, tuned.template, is_one=is_one)
        room = room_for_rows(shape, tuned.method)
        refuse_beyond_positions(asked, run_rows(shape, tuned.method), room, answer_tokens)
        return asked


def listed(questions: object) -> list[tuple[Picture, str]]:
    """Returns questions as a list of this moment: whoever gives them may change theirs meanwhile.

    Raises:
        BadInputError: If they are no several of anything; what each is, is looked at later.
    """
    if not isinstance(questions, Iterable):
        what = f"{type(questions).__name__} has no questions in it"
        raise BadInputError(what, where="questions", expected="[(picture, question), ...]")
    return list(questions)


def refuse_unless_texts(candidates: object) -> None:
    """Refuses candidate answers that are no list of texts; a text by itself would be a list of letters.

    Raises:
        BadInputError: Naming what they are.
    """
    if isinstance(candidates, str) or not isinstance(candidates, Sequence):
        raise BadInputError(
            f"the candidate answers are {candidates!r:.80}", where="candidates", expected="a list of texts"
        )
    for each in candidates:
        if not isinstance(each, str):
            raise BadInputError(f"{each!r:.40} is no answer", where="candidates", expected="texts")
        refuse_half_letters(each, "candidates")
