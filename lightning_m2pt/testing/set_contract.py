"""The contract of evaluation sets, as a test for anybody's class: ``set_contract(lambda root: MySet(root, ...))``."""

import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from lightning_m2pt.answering.decoding import Answer
from lightning_m2pt.answering.prediction_line import prediction_line
from lightning_m2pt.configuration.paths import path_arguments
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Span
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.metrics.predictions import PREDICTION_FORMAT, read_predictions
from lightning_m2pt.metrics.rule import Predictions, accepts
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.metrics.score import Score, possible_answers, score, with_known_targets
from lightning_m2pt.testing.claims import claim, claim_accepted
from lightning_m2pt.testing.small_processor import small_processor

MakeSet: TypeAlias = Callable[[str], Any]
"""From a folder to a ``BenchmarkDataModule``; data modules stand above this package, which therefore cannot name it."""
IMAGE_SIZE = 8
NOTHING_OF_THE_KIND = "a rhinoceros in aspic"
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _content: None,
    "empty": lambda _content: b"",
    "an HTML page": lambda _content: b"<!DOCTYPE html><html><body>Not found</body></html>\n",
    "cut in half": lambda content: content[: len(content) // 2],
}


def set_contract(make: MakeSet, folder: Path | None = None, *, optional: Collection[str] = ()) -> None:
    """Tests all that the project relies on in an evaluation set; seconds, with the set's own invented data.

    What ``write_fake`` writes is read in full: questions with ids, texts, pictures and targets that the default rule
    scores with 100 where they are answered and with 0 where another candidate is. Every question is asked once, the
    longest first, and every question by picture, too. The fingerprint follows content and not place. Files that are
    missing, empty, cut off or something else are refused (``BadInputError``) and never half read.

    Args:
        make: From a folder to a new data module on it, with a ``batch_size`` smaller than the set and no limit.
        folder: Where invented data are written; None takes a folder that is removed again. It has to be empty.
        optional: Names of files that a set may lack, such as one of several splits: without them it is a smaller set.

    Raises:
        AssertionError: At the first thing that does not hold, in a sentence.
    """
    with tempfile.TemporaryDirectory() as temporary:
        base = folder or Path(temporary)
        root = base / "set"
        kind = type(made(make, root))
        kind.write_fake(root)
        name = kind.__name__
        check_questions(made(make, root), name)
        check_readings(made(make, root), name)
        check_prediction_file(made(make, root), base, name)
        check_loaders(made(make, root), name)
        check_limit(make, root, name)
        check_fingerprint(make, base, name)
        check_damages(make, base, name, optional)


def made(make: MakeSet, root: Path) -> Any:  # noqa: ANN401  (a data module)
    """Returns a new module on a folder, connected to a processor of a few words."""
    module = make(str(root))
    module.connect(small_processor(IMAGE_SIZE))
    return module


def check_questions(module: Any, name: str) -> None:  # noqa: ANN401
    """Questions are complete, named once, and the same each time they are read."""
    with claim_accepted(f"{name}: what write_fake writes is refused"):
        module.setup()
        module.check(decode=True)
    questions: Sequence[Question] = module.questions()
    claim(len(questions) >= 4, f"{name}: write_fake writes {len(questions)} questions; 4 show more mistakes")
    claim(len({each.id for each in questions}) == len(questions), f"{name}: two questions have the same id")
    for question in questions:
        for part in ("id", "text", "target", "image_id", "source"):
            claim(bool(getattr(question, part).strip()), f"{name}: {question.id or 'a question'} has no {part}")
    claim(
        not path_arguments(type(module)).isdisjoint({"root", "file"}),
        f"{name}: the constructor's root is no FilePath, so that a path in a file depends on where a command is run",
    )
    claim(bool(module.rules), f"{name}: rules names no scoring rule")
    for rule in module.rules:
        claim(rule in RULES, f"{name}: there is no rule {rule}; there are {', '.join(RULES)}")
        with claim_accepted(f"{name}: its rule {rule} does not fit"):
            possible_answers(rule, header_of(module), lines_of(module, [each.target for each in questions]))
    module.forget()
    without_pictures = [[replace(each, image=Path()) for each in said] for said in (questions, module.questions())]
    claim(without_pictures[0] == without_pictures[1], f"{name}: reading again gives other questions")


def header_of(module: Any) -> dict[str, Any]:  # noqa: ANN401
    """Returns a prediction file's header of a set."""
    return {
        "format": PREDICTION_FORMAT,
        "benchmark": module.name,
        "template": module.template.name,
        "data_revision": module.data_revision,
        "questions": len(module.questions()),
        "default_rule": module.rules[0],
        "classes": module.classes,
    }


def lines_of(module: Any, answers: Sequence[str]) -> list[dict[str, Any]]:  # noqa: ANN401
    """Returns a prediction file's lines."""
    asked = zip(module.questions(), answers, strict=True)
    return [prediction_line(module.name, question, Answer(text, 1.0)) for question, text in asked]


def scored(module: Any, answers: Sequence[str]) -> Score:  # noqa: ANN401
    """Returns the score of answers under the default rule."""
    return score(header_of(module), lines_of(module, answers), module.rules[0])


def check_readings(module: Any, name: str) -> None:  # noqa: ANN401
    """The default rule takes the right answers for right, others for wrong, and each candidate for one answer."""
    questions, rule = module.questions(), module.rules[0]
    best = scored(module, [said(question) for question in questions])
    claim(best.value == 100, f"{name}: the targets score {best.value:.1f} under {rule}, not 100")
    claim(best.unparsed == 0, f"{name}: {rule} cannot read {best.unparsed} of the targets")
    claim(0 <= best.chance < 100, f"{name}: one answer to all questions scores {best.chance:.0f}; invent more targets")
    wrong = [wrong_answer(module, question, name) for question in questions]
    worst = scored(module, wrong)
    claim(worst.value == 0, f"{name}: wrong answers score {worst.value:.1f} under {rule}, not 0")
    silent = scored(module, [""] * len(questions))
    claim(silent.value <= best.chance, f"{name}: empty answers score {silent.value:.1f}, more than the best constant")
    claim(silent.unparsed == len(questions), f"{name}: {rule} reads something into an empty answer and does not say so")


def said(question: Question) -> str:
    """Returns the right answer as people write it."""
    return question.target.replace("_", " ")


def wrong_answer(module: Any, question: Question, name: str) -> str:  # noqa: ANN401
    """Returns a candidate that is wrong, or something that no question is about."""
    candidates: Sequence[str] = module.candidates_of(question)
    if not candidates:
        return NOTHING_OF_THE_KIND
    rule = RULES[module.rules[0]]
    everything = lines_of(module, [each.target for each in module.questions()])
    answers = possible_answers(module.rules[0], header_of(module), everything)
    asked: Predictions = [prediction_line(module.name, question, Answer(each, 1.0)) for each in candidates]
    asked = with_known_targets(asked, answers)
    readings = rule.read(asked, answers)
    right = [one for one, read, row in zip(candidates, readings, asked, strict=True) if accepts(read, row["target"])]
    claim(
        len(right) == 1,
        f"{name}: {len(right)} of the candidates {list(candidates)} are right for {question.id}, whose target is "
        f"{question.target!r}; it has to be one",
    )
    return next(each for each in candidates if each != right[0])


def check_prediction_file(module: Any, folder: Path, name: str) -> None:  # noqa: ANN401
    """What is written of answers can be read and scored without the data."""
    lines = lines_of(module, [said(question) for question in module.questions()])
    path = folder / f"{module.name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (header_of(module), *lines)), encoding="utf-8")
    with claim_accepted(f"{name}: its predictions cannot be read back"):
        content = read_predictions(path)
        value = score(content.header, content.predictions, module.rules[0]).value
    claim(value == 100, f"{name}: predictions score {value:.1f} after they were written and read")


def check_loaders(module: Any, name: str) -> None:  # noqa: ANN401
    """Every question is asked once, without its answer, the longest first; by picture as well."""
    batches, expected = list(module.predict_dataloader()), sorted(each.id for each in module.questions())
    asked = [sample for batch in batches for sample in batch.sample_ids]
    claim(sorted(asked) == expected, f"{name}: a question is asked twice, or not at all")
    claim(len(batches) > 1, f"{name}: all questions stand in one batch; make the set with a smaller batch_size")
    lengths = [int(row) for batch in batches for row in (batch.spans != Span.PADDING).sum(dim=1)]
    claim(lengths == sorted(lengths, reverse=True), f"{name}: shorter questions are asked before longer ones")
    for batch in batches:
        size = (len(batch), 3, IMAGE_SIZE, IMAGE_SIZE)
        claim(tuple(batch.pixel_values.shape) == size, f"{name}: a question has another number of pictures than one")
        marks = (batch.input_ids == IMAGE_TOKEN_ID).sum(dim=1)
        claim(bool((marks == 1).all()), f"{name}: a question has another number of picture marks than one")
        claim(bool((batch.labels == IGNORED_LABEL).all()), f"{name}: a question carries its answer")
    again = [sample for batch in module.predict_dataloader() for sample in batch.sample_ids]
    claim(again == asked, f"{name}: questions are asked in another order each time")
    module.by_picture = True
    together = [sample for batch in module.predict_dataloader() for sample in batch.sample_ids]
    claim(sorted(together) == expected, f"{name}: by picture, a question is asked twice, or not at all")


def check_limit(make: MakeSet, root: Path, name: str) -> None:
    """A limit takes whole groups, in the set's order, spread over the set, and makes another fingerprint."""
    whole, few = made(make, root), made(make, root)
    few.limit = limit = max(2, few.limit_unit)
    ids, chosen = ([each.id for each in module.questions()] for module in (whole, few))
    expected = limit - limit % few.limit_unit
    claim(len(chosen) == expected, f"{name}: with the limit {limit} there are {len(chosen)} questions")
    claim([each for each in ids if each in chosen] == chosen, f"{name}: a limit changes the order of questions")
    claim(few.number_of_all_questions == len(ids), f"{name}: with a limit it forgets how many questions there are")
    claim(few.data_revision != whole.data_revision, f"{name}: a part of the set has the fingerprint of the whole")


def check_fingerprint(make: MakeSet, base: Path, name: str) -> None:
    """The fingerprint follows content and not place."""
    root, copy = base / "set", base / "the same elsewhere"
    shutil.copytree(root, copy)
    claim(
        made(make, copy).data_revision == made(make, root).data_revision,
        f"{name}: the same data have another fingerprint in another folder",
    )


def check_damages(make: MakeSet, base: Path, name: str, optional: Collection[str]) -> None:
    """Damaged files are refused, or are not read at all."""
    root, revision = base / "set", made(make, base / "set").data_revision
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    read = set()
    for file in files:
        for what, damage in DAMAGES.items():
            content = (root / file).read_bytes()
            changed = damage(content)
            if changed is None:
                (root / file).unlink()
            else:
                (root / file).write_bytes(changed)
            outcome = outcome_of(make, root, f"{name}: {file} is {what}")
            (root / file).write_bytes(content)
            if outcome != revision:
                read.add(file)
            may_be = what == "cut in half" or (what == "missing" and file.name in optional)
            is_half_read = outcome not in ("", revision) and not may_be
            claim(not is_half_read, f"{name}: {file} is {what}, and the set is read as if that were a smaller set")
    claim(bool(read), f"{name}: none of the files that write_fake writes is read")


def outcome_of(make: MakeSet, root: Path, what: str) -> str:
    """Returns the fingerprint of what is read, or nothing where it is refused.

    Raises:
        AssertionError: If it is neither read nor refused.
    """
    try:
        module = made(make, root)
        module.check(decode=True)
        module.setup()
        return str(module.data_revision)
    except BadInputError:
        return ""
    except Exception as error:
        raise AssertionError(f"{what}, which ends in {type(error).__name__}: {error}") from error
