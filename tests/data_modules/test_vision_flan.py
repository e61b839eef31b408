"""Vision-Flan: reading, validation parts, and conversations of several questions."""

import json
from pathlib import Path

import pytest

from data_modules.vision_flan import VisionFlan, VisionFlanRecord, write_vision_flan
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID
from lightning_m2pt.inputs.samples import Turn
from lightning_m2pt.testing.small_processor import small_processor
from tests.support.data_fixtures import fake_pictures


def module(root: Path, **options: object) -> VisionFlan:
    arguments: dict = {"template": "vicuna_v1", "batch_size": 4, "order_seed": 1} | options
    made = VisionFlan(str(root), **arguments)
    made.connect(small_processor(8))
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    VisionFlan.write_fake(tmp_path)
    return tmp_path


def test_the_image_mark_is_cut_out_wherever_it_stands(tmp_path: Path) -> None:
    picture = fake_pictures(1, 8)[0]
    write_vision_flan(
        tmp_path,
        [
            VisionFlanRecord("same", "a.png", picture, "task", "What is it?\nOptions: (a) 1 (b) 2", "(b) 2", first)
            for first in (True, False)
        ],
    )
    written = json.loads((tmp_path / "annotation_191-task_1k.json").read_text())
    assert [record["conversations"][0]["value"].index("<image>") == 0 for record in written] == [True, False]
    samples, _ = module(tmp_path).read_once()
    assert samples[0].turns == samples[1].turns == (Turn("What is it?\nOptions: (a) 1 (b) 2", "(b) 2"),)
    assert samples[0].id != samples[1].id
    assert len(list((tmp_path / "images_191task_1k").iterdir())) == 1


def test_training_batches_have_what_the_contract_says(root: Path) -> None:
    data = module(root, micro_batch_size=2)
    data.check()
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 8
    for batch in batches:
        assert batch.pixel_values.shape == (2, 3, 8, 8)
        assert ((batch.input_ids == IMAGE_TOKEN_ID).sum(dim=1) == 1).all()
        assert ((batch.labels >= 0).sum(dim=1) > 0).all()
        assert {task for tasks in batch.tasks for task in tasks} <= {"fake+task_0", "fake+task_1"}
    assert data.val_dataloader() == []
    assert data.micro_batches_per_step(world_size=1) == 2
    assert data.steps_per_epoch() == 4


def test_a_validation_fraction_splits_by_picture(root: Path) -> None:
    data = module(root, validation_fraction=0.4)
    train, validation = data.read_once()
    assert len(train) + len(validation) == 16
    assert validation
    assert not {sample.image_id for sample in train} & {sample.image_id for sample in validation}
    asked = [name for loader in data.val_dataloader() for batch in loader for name in batch.sample_ids]
    assert asked == [sample.id for sample in validation]


def test_a_validation_file_must_not_repeat_the_training_set(root: Path) -> None:
    records = json.loads((root / "annotation_191-task_1k.json").read_text())
    (root / "validation.json").write_text(json.dumps(records[3:5]))
    with pytest.raises(BadInputError, match="there twice") as caught:
        module(root, validation_file="validation.json").read_once()
    assert "validation.json: record 1" in str(caught.value)
    assert "annotation_191-task_1k.json: record 4" in str(caught.value)
    for record in records[3:5]:
        record["conversations"][0]["value"] += " Really?"
    (root / "validation.json").write_text(json.dumps(records[3:5]))
    train, validation = module(root, validation_file="validation.json").read_once()
    assert (len(train), len(validation)) == (16, 2)


def test_questions_about_one_picture_can_be_joined(tmp_path: Path) -> None:
    pictures = fake_pictures(2, 8)
    records = [
        VisionFlanRecord(str(n), f"{n % 2}.png", pictures[n % 2], "task", f"Question {n}?", f"{n}", True)
        for n in range(6)
    ]
    write_vision_flan(tmp_path, records)
    data = module(tmp_path, questions_per_sample=2)
    train, _ = data.read_once()
    assert [[turn.answer for turn in sample.turns] for sample in train] == [["0", "2"], ["4"], ["1", "3"], ["5"]]
    assert all(len({sample.image_id}) == 1 for sample in train)
    data.setup("fit")
    assert data.train_texts[0].supervised_tokens > data.train_texts[1].supervised_tokens


def test_an_empty_answer_is_refused_or_left_out_on_request(root: Path) -> None:
    path = root / "annotation_191-task_1k.json"
    records = json.loads(path.read_text())
    records[4]["conversations"][1]["value"] = " "
    path.write_text(json.dumps(records))
    with pytest.raises(BadInputError, match=r"record 5.*fake_2.*empty"):
        module(root).read_once()
    train, _ = module(root, skip_empty_answers=True).read_once()
    assert len(train) == 15
    assert train[4].id == "5/fake_2"


def test_a_sample_that_is_too_long_is_named(root: Path) -> None:
    with pytest.raises(BadInputError, match=r"record 1.*0/fake_0 has \d+ tokens"):
        module(root, max_text_length=20).check()


def test_the_order_needs_a_seed_and_keeps_its_own(root: Path) -> None:
    data = module(root, order_seed=None)
    with pytest.raises(BadInputError, match="no seed"):
        data.train_dataloader()
    data.set_order_seed(4)
    assert data.seed() == 4
    data.set_order_seed(5)  # the next run of the same object
    assert data.seed() == 5


@pytest.mark.parametrize(
    "options",
    [
        *({"batch_size": 0}, {"micro_batch_size": 0}, {"questions_per_sample": 0}, {"max_text_length": 0}),
        *({"validation_fraction": 1.0}, {"validation_fraction": 0.1, "validation_file": "x"}, {"template": "none"}),
        *({"num_workers": -1},),
    ],
)
def test_options_out_of_range_are_refused(root: Path, options: dict) -> None:
    with pytest.raises(BadInputError):
        module(root, **options)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_worker_arrives_as_it_was(root: Path, num_workers: int) -> None:
    (root / "images_191task_1k" / "fake_3.png").write_bytes(b"<html>")
    with pytest.raises(BadInputError, match="HTML page") as caught:
        list(module(root, num_workers=num_workers).train_dataloader())
    assert caught.value.message() == str(caught.value)
    assert "fake_3.png" in caught.value.where
    assert len(str(caught.value).split("\n")) == 2
