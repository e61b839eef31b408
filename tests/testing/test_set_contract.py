"""The contract of evaluation sets finds what is planted: one bug a set, each of which would give a wrong number."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_modules.multiple_choice import MultipleChoice, fake_record, write_multiple_choice
from data_modules.vsr import VSR
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.metrics.rule import SEVERAL
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.testing.set_contract import set_contract


class SameIds(VSR):
    """Questions are named after their pictures."""

    def read(self) -> list[Question]:
        return [replace(each, id=each.image_id) for each in super().read()]


class NoSource(VSR):
    """Mistakes could not be found in the files."""

    def read(self) -> list[Question]:
        return [replace(each, source="") for each in super().read()]


class RootIsAnyText(VSR):
    """A relative path in a file is read from wherever the command is run."""

    def __init__(self, root: str, template: str, batch_size: int) -> None:
        super().__init__(root, template, batch_size)


class WrongTargets(VSR):
    """The targets are words that no rule reads."""

    def read(self) -> list[Question]:
        return [replace(each, target="correct" if each.target == "yes" else "wrong") for each in super().read()]


class OneTarget(VSR):
    """A model that always says yes looks perfect."""

    def read(self) -> list[Question]:
        return [replace(each, target="yes") for each in super().read()]


class UnknownRule(VSR):
    """A rule is misspelt."""

    rules = ("yes_no_word",)


class RuleForOthers(VSR):
    """A rule of another kind of set."""

    rules = ("choice_letter",)


class CandidatesNobodyAsksFor(VSR):
    """Likelihoods are compared of answers that are all wrong."""

    fixed_answers = ("Left", "Right")


class OptionsShifted(MultipleChoice):
    """The letters start at the second option."""

    def candidates_of(self, question: Question) -> tuple[str, ...]:
        return tuple("BCDE"[: len(question.choices)])


class OtherEachTime(VSR):
    """What is asked depends on what was read before."""

    times = 0

    def read(self) -> list[Question]:
        type(self).times += 1
        return [replace(each, text=f"{each.text} {self.times}") for each in super().read()]


class DependsOnThePlace(VSR):
    """The same data have another name in another folder."""

    def read(self) -> list[Question]:
        return [replace(each, text=f"{each.text} {self.root}") for each in super().read()]


class NamedByNumber(VSR):
    """A part of the set passes for the whole."""

    def fingerprint(self) -> str:
        return "0" * 64


class AsksTwice(VSR):
    """The last question is asked twice."""

    def asked_samples(self) -> list[Any]:
        samples = super().asked_samples()
        return [*samples, samples[-1]]


class TellsTheAnswer(VSR):
    """The answer stands behind the question."""

    def asked_samples(self) -> list[Any]:
        answer = "yes"
        return [
            replace(each, turns=(replace(each.turns[0], question=each.turns[0].question, answer=answer),) * 2)
            for each in super().asked_samples()
        ]


class PassesOverMistakes(MultipleChoice):
    """A file that cannot be read counts as none."""

    def read(self) -> list[Question]:
        try:
            return super().read()
        except BadInputError:
            write_multiple_choice(self.root, [fake_record(number) for number in range(4)])
            return super().read()


class LeavesPicturesOut(MultipleChoice):
    """Questions without a picture are passed over, and the score is over the others."""

    def read(self) -> list[Question]:
        return [each for each in super().read() if isinstance(each.image, Path) and each.image.exists()]


class Crashes(VSR):
    """A file that is missing ends in a traceback."""

    def read(self) -> list[Question]:
        for line in self.annotation_file.read_text(encoding="utf-8").splitlines():
            json.loads(line)
        return super().read()


class ReadsNothing(VSR):
    """What is invented is not what is read."""

    def read(self) -> list[Question]:
        other = self.root.parent / "other"
        if not other.exists():
            VSR.write_fake(other)
        self.root, here = other, self.root
        try:
            return super().read()
        finally:
            self.root = here


class BreaksItsLimit(VSR):
    """A limit is no limit."""

    def questions(self) -> list[Question]:
        self.limit = None
        return super().questions()


class TooFew(VSR):
    """Three questions show hardly a mistake."""

    def read(self) -> list[Question]:
        return super().read()[:3]


class NoRule(VSR):
    """Nobody says how it is scored."""

    rules = ()


class SameIdsUnseen(SameIds):
    """The library's own look at ids is gone around."""

    def questions(self) -> list[Question]:
        return self.read()


class WordsOfAnyAnswer(VSR):
    """The right answers are words that stand in answers to anything."""

    rules = ("has_word",)
    names = ("a", "in")

    @property
    def classes(self) -> list[str]:
        return list(self.names)

    def candidates_of(self, question: Question) -> tuple[str, ...]:
        return ()

    def read(self) -> list[Question]:
        return [replace(each, target=self.names[each.target == "yes"]) for each in super().read()]


class ClassTheRuleCannotRead(WordsOfAnyAnswer):
    """The rule compares ASCII letters alone, of which one class has none."""

    rules = ("exact_ehub",)
    names = ("red", "красный")


class ShortestFirst(VSR):
    """The most memory is needed at the end, after hours."""

    def read(self) -> list[Question]:
        return [replace(each, text=f"{each.text} the" * number) for number, each in enumerate(super().read(), 1)]

    def predict_dataloader(self) -> Any:
        return list(super().predict_dataloader())[::-1]


class TwoPictures(VSR):
    """An example about another picture stands in front."""

    def asked_samples(self) -> list[Any]:
        return [
            replace(
                each,
                turns=(replace(each.turns[0], answer="yes"), *each.turns),
                tasks=each.tasks * 2,
                earlier_images=(each.image,),
            )
            for each in super().asked_samples()
        ]


class InAnotherOrder(VSR):
    """Every other time it begins at the end."""

    times = 0

    def asked_samples(self) -> list[Any]:
        type(self).times += 1
        return super().asked_samples()[:: 1 if self.times % 2 else -1]


class AsksTwiceByPicture(VSR):
    """By picture, the last question is asked twice."""

    def asked_samples(self) -> list[Any]:
        samples = super().asked_samples()
        return [*samples, *([replace(samples[-1], id="again")] if self.by_picture else [])]


class TurnsRoundWithALimit(VSR):
    """A part of the set is in another order."""

    def questions(self) -> list[Question]:
        return super().questions()[:: 1 if self.limit is None else -1]


class ForgetsTheWhole(VSR):
    """With a limit, a part is shown as the whole."""

    def questions(self) -> list[Question]:
        found = super().questions()
        self.number_of_all_questions = len(found)
        return found


BUGS: dict[type, str] = {
    TooFew: "write_fake writes 3 questions; 4 show more mistakes",
    NoRule: "rules names no scoring rule",
    SameIdsUnseen: "two questions have the same id",
    WordsOfAnyAnswer: "wrong answers score 100.0 under has_word, not 0",
    ClassTheRuleCannotRead: "the targets score 50.0 under exact_ehub, not 100",
    ShortestFirst: "shorter questions are asked before longer ones",
    TwoPictures: "another number of pictures than one",
    InAnotherOrder: "asked in another order each time",
    AsksTwiceByPicture: "by picture, a question is asked twice",
    TurnsRoundWithALimit: "a limit changes the order of questions",
    ForgetsTheWhole: "with a limit it forgets how many questions there are",
    SameIds: r"fake_0.png' is there twice",
    NoSource: "test/1 has no source",
    RootIsAnyText: "root is no FilePath",
    WrongTargets: "its rule yes_no_words does not fit",
    OneTarget: "one answer to all questions scores 100",
    UnknownRule: "there is no rule yes_no_word",
    RuleForOthers: "its rule choice_letter does not fit",
    CandidatesNobodyAsksFor: "0 of the candidates .* are right for test/1",
    OptionsShifted: "0 of the candidates",
    OtherEachTime: "reading again gives other questions",
    DependsOnThePlace: "another fingerprint in another folder",
    NamedByNumber: "a part of the set has the fingerprint of the whole",
    AsksTwice: "^AsksTwice: a question is asked twice",
    TellsTheAnswer: "answer",
    PassesOverMistakes: "is read as if that were a smaller set",
    LeavesPicturesOut: "images/0.png is missing, and the set is read as if that were a smaller set",
    Crashes: "test.jsonl is missing, which ends in FileNotFoundError",
    ReadsNothing: "none of the files that write_fake writes is read",
    BreaksItsLimit: "with the limit 2 there are 6 questions",
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found_and_named(bug: type) -> None:
    with pytest.raises(AssertionError, match=BUGS[bug]) as caught:
        set_contract(lambda root: bug(root, "plain", batch_size=2))
    assert str(caught.value).startswith(bug.__name__)


def test_a_set_in_one_batch_shows_no_order_of_batches() -> None:
    with pytest.raises(AssertionError, match="all questions stand in one batch; make the set with a smaller"):
        set_contract(lambda root: VSR(root, "plain", batch_size=6))


@pytest.mark.parametrize(
    ("read_as", "sentence"),
    [("yes", "reads something into an empty answer"), (f"yes{SEVERAL}no", "empty answers score 100.0, more than")],
)
def test_a_rule_that_takes_silence_for_an_answer_is_found(monkeypatch, read_as: str, sentence: str) -> None:
    rule = RULES["yes_no_words"]
    generous = replace(rule, parse=lambda answer, answers: rule.parse(answer, answers) if answer else read_as)
    monkeypatch.setitem(RULES, "generous", generous)
    monkeypatch.setattr(VSR, "rules", ("generous",))
    with pytest.raises(AssertionError, match=sentence):
        set_contract(lambda root: VSR(root, "plain", batch_size=2))
