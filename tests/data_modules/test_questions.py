"""Questions of one's own: every rule over every form of file, what is found without being told, and what is refused."""

import base64
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_modules.few_shot import add_examples
from data_modules.questions import OWN_RULES, Questions
from data_modules.reading.files import fake_image, write_image
from data_modules.reading.options import form_of_answers, letter_under, options_in, options_of_columns
from data_modules.reading.right_answers import most_frequent
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.metrics.score import score
from lightning_m2pt.testing.set_contract import header_of, lines_of, set_contract
from tests.support.hub_files import picture, write_parquet

PICTURES = ("0.png", "1.png", "2.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(PICTURES):
        write_image(tmp_path / name, fake_image(number))
    return tmp_path


def written(folder: Path, rows: list[dict[str, Any]], name: str = "mine.jsonl") -> str:
    """Writes rows in the form that a file's name says; texts alone for tables."""
    path = folder / name
    if path.suffix in (".csv", ".tsv"):
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writeheader()
        table.writerows(rows)
        path.write_text(text.getvalue())
    elif path.suffix == ".json":
        path.write_text(json.dumps({"data": rows}))
    elif path.suffix == ".parquet":
        write_parquet(path, [row | {"image": picture(fake_image(int(row["image"][0])))} for row in rows])
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def asked(file: str, rule: str, **others: Any) -> Questions:
    return Questions(file, rule, "plain", **others)


def value(module: Questions, answers: list[str]) -> float:
    return score(header_of(module), lines_of(module, answers), module.rules[0]).value


def test_the_contract_of_sets_holds() -> None:
    set_contract(lambda root: Questions(f"{root}/questions.csv", "yes_no_words", "vicuna_v1", batch_size=3))


ROWS = [
    {"id": number, "image": PICTURES[number % 3], "question": f"Is it {number}?", "answer": ("yes", "No")[number % 2]}
    for number in range(4)
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet"])
def test_every_form_gives_the_same_questions(folder: Path, name: str) -> None:
    module = asked(written(folder, ROWS, name), "yes_no_words")
    said = [(each.id, each.text, each.target) for each in module.questions()]
    assert said == [(str(row["id"]), row["question"], row["answer"].lower()) for row in ROWS]
    assert module.candidates == ["Yes", "No"]
    module.check(decode=True)
    assert value(module, ["yes", "no", "no", "no"]) == 75


def test_what_was_recognised_is_said_and_columns_can_be_mapped(folder: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [{"pic": "0.png", "q": "Who?", "gt": "yes", "group": "a", "more": 1}]
    file = written(folder, rows)
    with pytest.raises(BadInputError, match=r"no column is recognised as image\n.*columns: \{image: COLUMN\}"):
        asked(file, "yes_no_words").questions()
    columns = {"image": "pic", "question": "q", "answer": "gt", "subtask": "group"}
    capsys.readouterr()
    (question,) = asked(file, "yes_no_words", columns=columns, name="my.set").questions()
    assert (question.id, question.subtask, question.image_id) == ("1", "a", "0.png")
    said = capsys.readouterr().out
    assert said == "my.set: columns: image = pic, question = q, answer = gt, subtask = group; not used: more\n"


def test_one_right_answer_is_that_of_its_own_column_and_several_those_of_theirs(folder: Path) -> None:
    row = {"image": "0.png", "question": "Which?", "answer": "yes", "answers": ["no", "never"]}
    file = written(folder, [row])
    (one,), (several,) = (asked(file, rule).questions() for rule in ("yes_no_words", "any_match"))
    assert (one.target, one.references) == ("yes", ())
    assert (several.target, several.references) == ("no", ("no", "never"))
    alone = written(folder, [{**row, "answer": None, "answers": ["no"]}], "alone.jsonl")
    assert asked(alone, "yes_no_words").questions()[0].target == "no"


def test_classes_are_all_answers_there_are_or_those_that_are_set(folder: Path) -> None:
    rows = [{"image": name, "answer": one} for name, one in zip(PICTURES, ("cat", "traffic_light", "cat"), strict=True)]
    file = written(folder, rows, "things.csv")
    module = asked(file, "closed_set", question="What is it?")
    assert (module.name, module.classes, module.candidates) == (
        "things",
        ["cat", "traffic_light"],
        ["cat", "traffic light"],
    )
    assert value(module, ["a cat", "Traffic lights.", "dog"]) == pytest.approx(200 / 3)
    wider = asked(file, "closed_set", question="What is it?", classes=["Cat", "dog", "traffic_light"])
    assert [each.target for each in wider.questions()] == ["Cat", "traffic_light", "Cat"]
    with pytest.raises(BadInputError, match=r"things\.csv:3: answer: the right answer is 'traffic_light'"):
        asked(file, "closed_set", question="What?", classes=["cat", "dog"]).questions()
    unreadable = written(folder, [row | {"answer": "a cat?"} for row in rows] + rows, "unreadable.jsonl")
    with pytest.raises(BadInputError, match=r"closed_set does not read the right answer 'a cat\?' as itself"):
        asked(unreadable, "closed_set", question="What?").questions()


def test_a_text_of_two_options_names_none() -> None:
    assert letter_under("text", "red", ["blue", "red"]) == "B"
    assert letter_under("text", "red", ["red", "red"]) is None


def test_an_answer_that_nobody_gave_is_no_target_and_an_option_is_not_empty() -> None:
    assert most_frequent(["", "", "red", "blue", "red"]) == "red"
    assert most_frequent(["", " "]) == ""
    assert options_of_columns(["a", 2, "", None], "here") == ("a", "2")
    for cells in (["a", "", "b"], ["a", None, "b"], ["a", "", ""]):
        with pytest.raises(BadInputError, match="2 to 26 texts"):
            options_of_columns(cells, "here")


CHOICES = ["a cat", "a dog", "a cow"]


@pytest.mark.parametrize(
    ("cells", "answers"),
    [
        (lambda row: {"choices": CHOICES}, ("A", "C")),
        (lambda row: {"options": json.dumps(CHOICES)}, ("(a)", "C.")),
        (lambda row: dict(zip("ABCD", [*CHOICES, ""], strict=True)), ("A", "C")),
        (lambda row: {"choices": dict(zip("ABC", CHOICES, strict=True))}, ("a cat", "A cow.")),
        (lambda row: {"choices": {"text": CHOICES, "label": ["A", "B", "C"]}}, (0, 2)),
        (lambda row: {"choices": CHOICES}, ("1", "3")),
        (lambda row: {"choices": {"label": ["B", "C", "A"], "text": [*CHOICES[1:], CHOICES[0]]}}, ("A", "C")),
        (lambda row: {"choices": dict(zip("ACBD", (*CHOICES[::2], CHOICES[1], None), strict=True))}, ("A", "C")),
    ],
    ids=["letters", "json", "columns", "texts", "from 0", "from 1", "other order", "the last one empty"],
)
def test_options_and_the_right_one_are_read_as_they_are_written(folder: Path, cells: Any, answers: Any) -> None:
    rows = [{"image": "0.png", "question": "Which?", "answer": answer} | cells(0) for answer in answers]
    module = asked(written(folder, rows), "choice_letter")
    assert [(each.target, each.choices) for each in module.questions()] == [
        ("A", tuple(CHOICES)),
        ("C", tuple(CHOICES)),
    ]
    assert module.questions()[0].text.startswith(
        "Which?\nA. a cat\nB. a dog\nC. a cow\nAnswer with the option's letter"
    )
    assert module.candidates_of(module.questions()[0]) == ("A", "B", "C")
    assert value(module, ["A. a cat", "a cow"]) == 100


def test_options_are_in_the_order_of_their_names() -> None:
    names = [str(number) for number in range(1, 12)]
    assert options_in({name: f"text {name}" for name in sorted(names)}, "") == tuple(f"text {name}" for name in names)
    assert options_in({"option10": "c", "option2": "b", "option1": "a"}, "") == ("a", "b", "c")
    for wrong in (
        {"A": "a", "C": "c"},
        {"2": "a", "3": "b"},
        {"text": ["a", "b"], "label": ["A"]},
        {"": "a", "B": "b"},
    ):
        with pytest.raises(BadInputError, match="the options are called"):
            options_in(wrong, "")


def test_answers_that_could_be_numbers_from_0_or_from_1_are_refused_until_it_is_said(folder: Path) -> None:
    rows = [{"image": "0.png", "question": "Which?", "choices": CHOICES, "answer": 1}] * 2
    file = written(folder, rows)
    with pytest.raises(BadInputError, match="can be read as index and as index_from_1: 1 is B or A"):
        asked(file, "choice_letter").questions()
    assert asked(file, "choice_letter", answer_form="index_from_1").questions()[0].target == "A"
    assert form_of_answers([("2", ["1", "2"])], "text", "", "") == "text"
    assert letter_under("text", 2, ["1", "2"]) == "B"


def test_options_are_listed_or_hidden(folder: Path) -> None:
    file = written(folder, [{"image": "0.png", "question": "Which?", "choices": CHOICES, "answer": "B"}])
    listed, hidden = (asked(file, "choice_letter", options=shown) for shown in ("listed", "hidden"))
    assert listed.questions()[0].text == "Which?\na cat\na dog\na cow\nAnswer with one of these options."
    assert hidden.questions()[0].text == "Which?"
    assert listed.candidates_of(listed.questions()[0]) == tuple(CHOICES)
    assert value(hidden, ["a dog."]) == 100
    swapped = written(
        folder, [{"image": "0.png", "question": "Q", "choices": ["C", "B", "A"], "answer": "B"}], "s.json"
    )
    module = asked(swapped, "choice_letter", options="hidden", answer_form="letter")
    with pytest.raises(BadInputError, match="the option 'C' reads as another one's letter"):
        module.candidates_of(module.questions()[0])


def encoded(number: int) -> str:
    content = io.BytesIO()
    Image.fromarray(fake_image(number)).save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


def test_vlmevalkits_tables_are_read_as_they_are(folder: Path) -> None:
    head = ["index", "image", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category", "split"]
    cells = [
        ["7", encoded(0), "Which\tone?", "Look up.", "cat", "dog", "", "", "B", "animals", "x", "dev"],
        ["8", "7", "And now?", "", "cat", "dog", "cow", "fox", "D", "animals", "x", "dev"],
        ["9", encoded(1), "Colour?", "", "red", "blue", "", "", "A", "colours", "x", "dev"],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter="\t").writerows([head, *cells])
    (folder / "MMBench_DEV_EN.tsv").write_text(text.getvalue())
    module = asked(str(folder / "MMBench_DEV_EN.tsv"), "choice_letter")
    first, second, third = module.questions()
    assert (first.id, second.id, first.subtask, third.subtask) == ("7", "8", "animals", "colours")
    assert first.text.startswith("Look up.\nWhich\tone?\nA. cat\nB. dog\nAnswer")
    assert (second.image, second.image_id) == (first.image, first.image_id)
    assert third.image != first.image
    assert [each.target for each in module.questions()] == ["B", "D", "A"]
    module.check(decode=True)
    scored = score(header_of(module), lines_of(module, ["B", "A", "A"]), "choice_letter")
    assert scored.table["subtask animals"] == {"accuracy": 0.5, "n": 2.0}
    assert scored.table["subtask colours"] == {"accuracy": 1.0, "n": 1.0}


def test_several_right_answers_count_alike_or_by_people(folder: Path) -> None:
    rows = [
        {"image": "0.png", "question": "What?", "answer": "car", "answers": ["car", "the taxi", "auto"]},
        {"image": "1.png", "question": "What?", "answer": "bus", "answers": ["bus"]},
    ]
    module = asked(written(folder, rows), "any_match")
    assert module.questions()[0].references == ("car", "the taxi", "auto")
    assert value(module, ["a taxi", "car"]) == 50
    with pytest.raises(BadInputError, match="names 3 references\n  expected: what more than 3 people answered"):
        asked(written(folder, rows), "vqa_accuracy").questions()
    people = [{"image": "0.png", "question": "What?", "answers": [{"answer": "car"}] * 3 + [{"answer": "bus"}] * 7}]
    module = asked(written(folder, people, "people.json"), "vqa_accuracy")
    assert (module.questions()[0].target, value(module, ["car"])) == ("bus", pytest.approx(90))


def test_numbers_have_the_tolerance_of_their_row_or_of_the_set(folder: Path) -> None:
    rows = [{"image": "0.png", "question": "How many?", "answer": 40, "tolerance": each} for each in ("", "10%")]
    file = written(folder, rows, "numbers.csv")
    module = asked(file, "relaxed_accuracy")
    assert [each.tolerance for each in module.questions()] == ["5%", "10%"]
    assert value(module, ["43", "43"]) == 50
    assert asked(file, "number_within").questions()[0].tolerance == "0"
    assert asked(file, "number_within", tolerance="2").questions()[0].tolerance == "2"
    assert asked(file, "number_within").data_revision != asked(file, "number_within", tolerance="2").data_revision
    with pytest.raises(BadInputError, match="the tolerance of '1' is '2'"):
        asked(file, "relaxed_accuracy", tolerance="2").questions()
    with pytest.raises(BadInputError, match=r"benchmarks\.Questions\.tolerance: the value is 'much'"):
        asked(file, "number_within", tolerance="much")


def test_captions_are_asked_with_one_question_for_all(folder: Path) -> None:
    pytest.importorskip("pycocoevalcap")
    rows = [
        {"image": name, "captions": [f"a small {thing} on a table", f"{thing} seen from above"]}
        for name, thing in zip(PICTURES, ("cup", "plate", "spoon"), strict=True)
    ]
    module = asked(written(folder, rows), "cider", question="Describe the picture briefly.")
    assert {each.text for each in module.questions()} == {"Describe the picture briefly."}
    assert value(module, ["a small cup on a table", "plate seen from above", "a fork"]) > 30


BAD = [
    ({"rule": "pope_oficial"}, {}, r"Questions\.rule: unknown scoring rule"),
    ({"rule": "mme_official"}, {}, r"Questions\.rule: mme_official needs MME's own questions"),
    ({"name": "vsr"}, {}, r"Questions\.name: vsr is a set that comes with the project"),
    ({"name": "a/b"}, {}, r"Questions\.name: the set's name would be 'a/b'"),
    ({"classes": ["a"]}, {}, r"Questions\.classes: yes_no_words has no use for classes"),
    ({"options": "hidden"}, {}, r"Questions\.options: yes_no_words has no use for options"),
    ({"columns": {"picture": "image"}}, {}, r"Questions\.columns: 'picture' is nothing a column can be"),
    ({"split": "test"}, {}, r"Questions\.split: one file has no splits"),
    ({}, {"answer": "perhaps"}, r"mine\.jsonl:2: answer: the right answer is 'perhaps'"),
    ({}, {"answer": None}, r"mine\.jsonl:2: answer: the right answer is None"),
    ({}, {"image": None}, r"mine\.jsonl:2: image: the question shows 0 pictures"),
    ({}, {"image": ["0.png", "1.png"]}, r"mine\.jsonl:2: image: the question shows 2 pictures"),
    ({}, {"image": "../0.png"}, r"mine\.jsonl:2: image: the image name"),
    ({}, {"image": "https://x.org/0.png"}, r"mine\.jsonl:2: image: the picture is an address"),
    ({}, {"image": "\ud800.png"}, r"mine\.jsonl:2: image: the picture is"),
    ({}, {"question": " "}, r"mine\.jsonl:2: the question is empty"),
    ({}, {"question": 7.5, "task": {"a": 1}}, r"mine\.jsonl:2: task: the value is \{'a': 1\}"),
    ({}, {"id": 0}, r"mine\.jsonl:2: '0' is there twice"),
]


@pytest.mark.parametrize(("settings", "cells", "message"), BAD, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_refused_by_name(
    folder: Path, settings: dict[str, Any], cells: dict[str, Any], message: str
) -> None:
    file = written(folder, [ROWS[0], ROWS[1] | cells])
    with pytest.raises(BadInputError, match=message) as caught:
        asked(file, **{"rule": "yes_no_words", **settings}).questions()
    assert len(str(caught.value).split("\n")) <= 3


def test_every_rule_but_mmes_is_for_questions_of_ones_own() -> None:
    assert set(OWN_RULES) == {name for name in RULES if not name.startswith("mme_")}


def test_captions_without_their_library_are_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.bleu.bleu", None)
    with pytest.raises(EnvironmentFailure, match=r"pycocoevalcap, which is not installed\n.*the extra `captions`"):
        asked("nowhere.jsonl", "bleu")


def test_names_come_from_files_folders_and_repositories(folder: Path) -> None:
    assert asked("hub:owner/my.set", "any_match").name == "my.set"
    assert asked("hub:owner/set/part.csv", "any_match").name == "part"
    assert asked(str(folder), "any_match", name="all").name == "all"


def test_examples_come_from_the_training_split_of_a_folder(folder: Path) -> None:
    written(folder, ROWS[:2], "val.jsonl")
    written(folder, [row | {"id": f"t{row['id']}", "question": "Is it?"} for row in ROWS], "train.jsonl")
    module = asked(str(folder), "yes_no_words", split="val", name="mine")
    add_examples(module, 2)
    assert [len(sample.turns) for sample in module.asked_samples()] == [3, 3]
    with pytest.raises(BadInputError, match="mine has no training split"):
        add_examples(asked(str(folder / "val.jsonl"), "yes_no_words", name="mine"), 2)
