"""Files of one's own to tune on: every form says the same, and what is wrong is named or left out."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from data_modules.conversations import Conversations, told_kinds, unit_hash
from data_modules.reading.files import fake_image, write_image
from experiments.configuration.cli import parse_experiment
from lightning_m2pt.backbones.shortcuts import EVERY_ROW
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import open_image
from lightning_m2pt.inputs.mistakes import SeveralMistakesError
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.testing.small_processor import small_processor
from lightning_m2pt.tuning.losses import supervised_rows
from tests.support.hub_files import png
from tests.support.own_files import FORMS, RECORDS, name_of, write_pictures, written
from tests.support.small_experiment import small_words

HUMAN, GPT = {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}


def module(file: Path, **options: Any) -> Conversations:
    arguments: dict[str, Any] = {"template": "vicuna_v1", "batch_size": 4, "order_seed": 1} | options
    made = Conversations(str(file), **arguments)
    made.connect(small_processor(8))
    return made


def read(folder: Path, *records: Any, name: str = "a.json", **options: Any) -> list[Sample]:
    """Writes records beside the pictures 0 to 7, and returns the samples of them."""
    write_pictures(folder)
    train, _ = module(written(folder / name, json.dumps(records)), **options).read_once()
    return list(train)


def said(sample: Sample) -> tuple:
    pictures = [numpy.asarray(open_image(image)).tobytes() for image in sample.images]
    return (sample.turns, pictures, sample.system, sample.shown_in_turns)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(tmp_path: Path, form: str) -> None:
    write, options = FORMS[form]
    data = module(write(tmp_path), **options)
    data.check(decode=True)
    samples, _ = data.read_once()
    expected = [((Turn(question, answer),), [fake_image(number).tobytes()]) for number, question, answer in RECORDS]
    assert [said(sample)[:2] for sample in samples] == expected
    assert len({sample.id for sample in samples}) == 16
    assert len({sample.image_id for sample in samples}) == (16 if form == "captioned folder" else 8)
    assert {task for sample in samples for task in sample.tasks} == {tmp_path.name if "folder" in form else "own"}


def test_every_form_has_the_same_losses_to_the_last_digit(tmp_path: Path) -> None:
    experiment = parse_experiment(small_words(tmp_path))
    experiment.model.configure_model()
    losses = {}
    for form, (write, options) in FORMS.items():
        data = module(write(tmp_path / form), **options)
        data.connect(experiment.model.backbone.processor())
        with torch.no_grad():
            found = [
                supervised_rows(experiment.model.backbone, each, EVERY_ROW).losses for each in data.train_dataloader()
            ]
        losses[form] = torch.cat(found).tolist()
    first = losses.pop("llava json")
    assert len(first) > 16
    assert all(others == first for others in losses.values())


def test_ids_pictures_and_tasks_are_read_as_they_come(tmp_path: Path) -> None:
    samples = read(
        tmp_path,
        {"id": 17, "image": [name_of(1)], "conversations": [HUMAN, GPT], "task_name": "a"},
        {"id": "x", "image": name_of(2), "conversations": [HUMAN, GPT], "task_name": None},
        {
            "image": name_of(3),
            "conversations": [{"role": "User", "content": "What?"}, {"role": "model", "content": "So."}],
        },
        {"image": None, "conversations": [{"user": "What?", "assistant": "Nothing."}]},
        name="mine.json",
    )
    assert [sample.id for sample in samples] == ["0/17", "1/x", "2", "3"]
    assert [sample.tasks for sample in samples] == [("a",), ("mine",), ("mine",), ("mine",)]
    assert [sample.image_id for sample in samples] == [name_of(1), name_of(2), name_of(3), ""]
    assert samples[3].image is None


def test_system_texts_and_first_answers_are_read_as_what_they_are(tmp_path: Path, capsys) -> None:
    system, hello = {"from": "system", "value": " Be brief. "}, {"from": "gpt", "value": "Hello."}
    samples = read(
        tmp_path,
        {"image": name_of(0), "conversations": [system, HUMAN, GPT]},
        {"image": name_of(0), "conversations": [hello, HUMAN, GPT]},
        {"image": name_of(0), "conversations": [system, hello, HUMAN, GPT], "system": "Be brief."},
    )
    assert [sample.system for sample in samples] == ["Be brief.", "", "Be brief."]
    assert {sample.turns for sample in samples} == {(Turn("What?", "That."),)}
    notes = capsys.readouterr().out
    assert "that begin with a turn of the model's, which is left out: 2; with a system text of their own: 2" in notes


def test_pictures_of_later_turns_and_missing_marks(tmp_path: Path, capsys) -> None:
    def talk(*questions: str) -> list[dict[str, str]]:
        return [turn for question in questions for turn in ({"from": "human", "value": question}, GPT)]

    names = [name_of(number) for number in range(3)]
    samples = read(
        tmp_path,
        {"image": names, "conversations": talk("<image>\nWhat?", "And?", "<image>\n<image>\nThese?")},
        {"image": names[:2], "conversations": talk("What?\n<image>\n<image>", "And?")},
        {"image": names[0], "conversations": talk("What?", "And?")},
        {"conversations": talk("What?", "And?")},
        {"image": names[0], "conversations": talk("What?", "<image>\nThis?", "And?")},
    )
    assert [sample.shown_in_turns for sample in samples] == [(1, 0, 2), (), (), (), (0, 1)]
    assert [sample.images_of_turns for sample in samples] == [(1, 0, 2), (2,), (1,), (0,), (0, 1)]
    assert [turn.question for turn in samples[0].turns] == ["What?", "And?", "These?"]
    assert [image.name for image in samples[0].images] == [Path(name).name for name in names]
    assert samples[0].image_id.split("\n") == names
    notes = capsys.readouterr().out
    assert "a.json: records with pictures and no mark for them, whose first question shows them: 1" in notes
    assert "with several pictures: 2; without a picture: 1" in notes


def test_pictures_inside_of_messages(tmp_path: Path) -> None:
    content = base64.b64encode(png(fake_image(5))).decode()
    parts = [
        {"type": "text", "text": "This"},
        {"type": "image", "image": name_of(1)},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{content}"}},
    ]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": [{"type": "text", "text": "So."}]}]
    (sample,) = read(tmp_path, {"messages": messages})
    assert said(sample) == ((Turn("This", "So."),), [fake_image(1).tobytes(), fake_image(5).tobytes()], "", ())
    with pytest.raises(BadInputError, match="the messages name other pictures than the record"):
        read(tmp_path, {"messages": messages, "images": [name_of(1)]})


def test_words_around_a_picture_inside_of_a_message_stay_apart(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "Look"},
        {"type": "image", "image": name_of(1)},
        {"type": "text", "text": "What"},
        {"type": "text", "text": " is it?"},
    ]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "A ring."}]
    (sample,) = read(tmp_path, {"messages": messages})
    assert sample.turns == (Turn("Look\n\nWhat is it?", "A ring."),)


def test_instructions_with_inputs_histories_and_numbers(tmp_path: Path) -> None:
    samples = read(
        tmp_path,
        {"instruction": "Add.", "input": "1 and 2", "output": 3, "history": [["Hello", "Hi."]], "system": "Be exact."},
        {"instruction": "Add.", "input": "", "output": " 2.5 ", "history": None},
    )
    assert samples[0].turns == (Turn("Hello", "Hi."), Turn("Add.\n1 and 2", "3"))
    assert (samples[0].system, samples[1].turns) == ("Be exact.", (Turn("Add.", "2.5"),))


def test_captions_are_asked_for(tmp_path: Path, capsys) -> None:
    (sample,) = read(tmp_path, {"image": name_of(0), "caption": "A ring.", "url": "x"})
    assert sample.turns == (Turn("Describe the image.", "A ring."),)
    assert "a.json: 1 records; columns: image, caption; not used: url" in capsys.readouterr().out
    (sample,) = read(tmp_path, {"image": name_of(0), "label": "ring"}, question="Which shape is it?")
    assert sample.turns == (Turn("Which shape is it?", "ring"),)


def test_a_picture_under_another_name_is_not_left_out(tmp_path: Path) -> None:
    first = {"image": "0.png", "question": "a", "answer": "b"}
    other = {"img": "1.png", "question": "a", "answer": "b"}
    with pytest.raises(BadInputError, match="no picture under 'image', and 'img' is not read"):
        read(tmp_path, first, other)
    assert [sample.image_id for sample in read(tmp_path, first, {**other, "img": None})] == ["0.png", ""]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"image": name_of(0), "conversations": [HUMAN]}, "the last question has no answer"),
        ({"image": name_of(0), "conversations": [HUMAN, HUMAN]}, "two turns of the user follow"),
        (
            {"image": name_of(0), "conversations": [HUMAN, GPT, {"from": "system", "value": "x"}]},
            "behind the first turn",
        ),
        (
            {"image": name_of(0), "conversations": [{"from": "tool", "value": "x"}, GPT]},
            "entry 1: the turn is from 'tool'",
        ),
        (
            {"image": name_of(0), "conversations": [{"from": "system", "value": "<image>"}, HUMAN, GPT]},
            "outside of questions",
        ),
        (
            {"image": name_of(0), "conversations": [{"from": "system", "value": "x"}, HUMAN, GPT], "system": "y"},
            "entry 1: there are two system texts",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "What?"},
                    {"role": "assistant", "content": [{"type": "image", "image": name_of(0)}]},
                ]
            },
            "entry 2: a picture stands in a turn of the assistant",
        ),
        ({"image": name_of(0), "conversations": "What?"}, "the conversation is 'What"),
        ({"conversations": [HUMAN, GPT]}, "1 <image> marks, and the record has no image"),
        ({"image": [name_of(0), name_of(1)], "conversations": [HUMAN, GPT]}, "1 <image> marks for 2 images"),
        ({"image": "https://x.org/a.png", "conversations": [HUMAN, GPT]}, "is an address"),
        ({"image": "../a.png", "conversations": [HUMAN, GPT]}, "leads out"),
        ({"id": [1], "image": name_of(0), "conversations": [HUMAN, GPT]}, r"the id is \[1\]"),
        ({"id": True, "image": name_of(0), "conversations": [HUMAN, GPT]}, "the id is True"),
        ({"image": name_of(0), "conversations": [HUMAN, {"from": "gpt", "value": "\ud800"}]}, "half a character"),
        (
            {"messages": [{"role": "user", "content": [{"type": "video"}]}, {"role": "assistant", "content": "x"}]},
            "a part of",
        ),
        ({"videos": ["a.mp4"], "question": "<video>What?", "answer": "x"}, "the record has videos"),
        ({"question": "What?"}, "'question' is alone"),
        ({"label": "ring"}, "'label' is alone"),
        ({"a": "ring", "b": 1}, "no column is a conversation, a caption, or question and answer: of a, b"),
        ({"question": "What?", "answer": True}, "the value is True"),
        ({"question": "What?", "answer": None}, "answer: the answer is empty"),
        ({"question": "What?", "answer": "x", "history": [["a"]]}, "an earlier turn"),
    ],
)
def test_what_is_wrong_is_refused_by_its_record(tmp_path: Path, record: dict, expected: str) -> None:
    with pytest.raises(BadInputError, match=expected) as caught:
        read(tmp_path, record)
    assert "a.json" in caught.value.where
    assert len(caught.value.message().split("\n")) <= 3


def wrong(folder: Path) -> list[Any]:
    """Six records, one right, one without a picture; a picture of which half is missing."""
    write_image(folder / "half.png", fake_image(9))
    (folder / "half.png").write_bytes((folder / "half.png").read_bytes()[:900])
    empty = {"from": "gpt", "value": ""}
    return [
        {"image": name_of(0), "conversations": [HUMAN, GPT]},
        {"id": 1, "image": name_of(1), "conversations": [HUMAN, empty]},
        {"id": 22, "image": name_of(1), "conversations": [HUMAN, empty]},
        {"image": "half.png", "conversations": [HUMAN, GPT]},
        {"image": "none.png", "conversations": [HUMAN, GPT]},
        {"conversations": [{"from": "human", "value": "What?"}, GPT]},
    ]


def test_wrong_records_are_left_out_on_request_and_counted(tmp_path: Path, capsys) -> None:
    with pytest.raises(SeveralMistakesError) as caught:
        read(tmp_path, *wrong(tmp_path))
    assert [mistake.where.rpartition(": ")[0][-8:] for mistake in caught.value.mistakes] == ["record 2", "record 3"]
    capsys.readouterr()
    samples = read(tmp_path, *wrong(tmp_path), on_error="leave_out")
    assert [sample.id for sample in samples] == ["0", "5"]
    assert "a.json: 4 of 6 records are left out: 2 because the answer of ... is empty; 1 because the image is" in (
        capsys.readouterr().out
    )
    samples = read(tmp_path, *wrong(tmp_path), on_error="leave_out", one_picture_only=True)
    assert [sample.id for sample in samples] == ["0"]
    assert "1 because they have no picture" in capsys.readouterr().out
    with pytest.raises(BadInputError, match="no sample is left of 5: 2 because the answer of"):
        read(tmp_path, *wrong(tmp_path)[1:], on_error="leave_out", one_picture_only=True)


def test_the_most_frequent_reasons_are_told_and_the_others_counted() -> None:
    counts = dict(zip("gfedcba", (1, 1, 2, 30, 4, 5, 6), strict=True))
    assert told_kinds({"x": 2, "w": 2}) == "2 because w; 2 because x"
    assert told_kinds(counts) == ("30 because d; 6 because a; 5 because b; 4 because c; 2 because e; 2 more kinds")


def test_what_the_template_or_the_limit_refuses_is_left_out_too(tmp_path: Path, capsys) -> None:
    records = [
        {
            "conversations": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": answer}],
            "system": system,
        }
        for answer, system in (("That.", ""), ("word " * 90, ""), ("That.", "Be brief."), ("This.", ""))
    ]
    limits = {"template": "plain", "max_text_length": 60}
    read(tmp_path, *records)
    with pytest.raises(BadInputError, match="record 3: sample 2 has a system text"):
        module(tmp_path / "a.json", **limits).setup("fit")
    with pytest.raises(SeveralMistakesError) as caught:
        module(tmp_path / "a.json", **limits).check()
    assert [mistake.where[-8:] for mistake in caught.value.mistakes] == ["record 3", "record 2"]
    capsys.readouterr()
    samples = read(tmp_path, *records, on_error="leave_out", **limits)
    assert [sample.id for sample in samples] == ["0", "3"]
    said_of = capsys.readouterr().out
    assert (
        "2 of 4 records are left out: 1 because sample ... has ... tokens; 1 because sample ... has a system" in said_of
    )


def test_a_validation_part_by_file_or_fraction(tmp_path: Path) -> None:
    write, options = FORMS["csv"]
    file = write(tmp_path)
    train, validation = module(file, validation_fraction=0.4, **options).read_once()
    assert len(train) + len(validation) == 16
    assert not {sample.image_id for sample in train} & {sample.image_id for sample in validation}
    with pytest.raises(BadInputError, match="there twice"):
        module(file, validation_file=str(file), **options).read_once()
    other = written(tmp_path / "b.csv", "path,q,label\npictures/0.png,Which?,no\n")
    _, validation = module(file, validation_file=str(other), **options).read_once()
    assert [sample.id for sample in validation] == ["validation/0"]
    for wrong_options in ({"validation_fraction": 1.0}, {"validation_fraction": 0.1, "validation_file": "x"}):
        with pytest.raises(BadInputError):
            module(file, **wrong_options)
    with pytest.raises(BadInputError, match="the image folder is missing"):
        module(file, image_root=str(tmp_path / "none"), **options).read_once()


def test_no_picture_is_in_both_parts_where_records_have_several(tmp_path: Path) -> None:
    def record(*pictures: int) -> dict[str, Any]:
        names = [f"pictures/{number}.png" for number in pictures]
        messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "."}]
        return {"messages": messages, "images": names}

    write_pictures(tmp_path)
    # 0-1, 1-2 and 2 go together through 1 and 2; so do 4-3 and 3; 5, 6 and 7 are alone, 6-6 is one picture twice.
    pictures = [(0, 1), (5,), (1, 2), (2,), (4, 3), (6, 6), (), (3,), (6,), (7,), ()]
    together = [0, 5, 0, 0, 3, 6, None, 3, 6, 7, None]
    for order in (list(range(11)), list(reversed(range(11)))):
        file = written(tmp_path / "a.json", json.dumps([record(*pictures[place]) for place in order]))
        for fraction in (0.2, 0.5, 0.8):
            train, validation = module(file, validation_fraction=fraction).read_once()
            found = {sample.id for sample in validation}
            assert len(train) + len(validation) == 11
            assert not {image for each in train for image in each.images} & {
                image for each in validation for image in each.images
            }
            for position, place in enumerate(order):
                name = str(position) if together[place] is None else f"pictures/{together[place]}.png"
                assert (str(position) in found) == (unit_hash(name) < fraction)


def test_a_fraction_that_sets_no_record_aside_is_refused(tmp_path: Path) -> None:
    record = {"image": "1.png", "conversations": [HUMAN, GPT]}
    with pytest.raises(BadInputError, match=r"0\.2 sets none of 3 records aside.* only 1 group can") as caught:
        read(tmp_path, record, record, record, validation_fraction=0.2)
    assert caught.value.where == "data.validation_fraction"
    assert len(read(tmp_path, record, record, record)) == 3


def test_an_index_keeps_what_was_said_of_a_file(tmp_path: Path, capsys) -> None:
    write, options = FORMS["csv"]
    file, index = write(tmp_path), str(tmp_path / "index")
    said_each_time = []
    for _ in range(2):
        data = module(file, index_folder=index, **options)
        train, _ = data.read_once()
        said_each_time.append((capsys.readouterr().out, [said(sample) for sample in train], data.fingerprint()))
    assert said_each_time[0] == said_each_time[1]
    assert "own.csv: 16 records; columns: image = path, question = q, answer = label" in said_each_time[0][0]
    assert len(list((tmp_path / "index").glob("samples-*"))) == 1


def test_a_file_to_validate_on_is_of_the_same_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "datasets--me--mine"
    for branch, commit in (("main", "0" * 40), ("v1", "1" * 40)):
        for name in ("train", "test"):
            record = {"question": f"{name} of {branch}?", "answer": "Yes"}
            written(place / "snapshots" / commit / f"{name}.json", json.dumps([record]))
        written(place / "refs" / branch, commit)
    for revision, branch in ((None, "main"), ("v1", "v1")):
        names = {"revision": revision, "validation_file": "hub:me/mine/test.json"}
        parts = module(Path("hub:me/mine/train.json"), **names).read_once()
        assert [part[0].turns[0].question for part in parts] == [f"train of {branch}?", f"test of {branch}?"]
