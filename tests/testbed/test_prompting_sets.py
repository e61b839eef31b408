"""The training splits for prompts: right answers, unseen pictures, written as the candidates of their sets are."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy
import pytest
from rich.console import Console

from data_modules.cifar10 import CIFAR10
from data_modules.mnist import MNIST
from data_modules.pope import POPE
from data_modules.questions import Questions
from data_modules.vision_flan import VisionFlan
from experiments.commands.data_testbed import main
from experiments.testbed import prompting_render
from experiments.testbed.manifest import MANIFEST, PROMPTING_SETS, is_complete
from experiments.testbed.manifest import PROMPTING_FOLDER as FOLDER
from experiments.testbed.name_statistics import NameStatistics
from experiments.testbed.prompting_render import write_prompting
from experiments.testbed.prompting_sets import (
    COUNTS,
    HOW_MANY,
    TRAINING_PART,
    VALIDATION_PART,
    POPEPictures,
    PromptingSizes,
    cifar10_picture,
    counting_picture,
)
from experiments.testbed.render import SETS
from experiments.testbed.scenes import SceneKind, random_generator, sample_scene
from experiments.testbed.sizes import TestbedSizes
from experiments.testbed.tuning_set import tuning_scene
from experiments.testbed.vocabulary import SHAPES, article
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.images import open_image

SMALL = PromptingSizes(training_images=30, validation_images=6, counting_images=8, tuning_images=40)
TEST_SIZES = TestbedSizes(training_images=40, pope_images=6, classification_images=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("testbed") / FOLDER
    write_prompting(root, 0, SMALL, Console(quiet=True))
    return root


def records(root: Path, file: str) -> list[dict]:
    return json.loads((root / file).read_text())


def answers(root: Path, file: str = "annotation_191-task_1k.json") -> list[tuple[str, str]]:
    return [
        (one["conversations"][0]["value"].removeprefix("<image>\n"), one["conversations"][1]["value"])
        for one in records(root, file)
    ]


def digest(image: object) -> str:
    return hashlib.sha256(numpy.array(image).tobytes()).hexdigest()


def test_every_set_has_a_training_and_a_validation_part_of_other_pictures(folder: Path) -> None:
    for name in PROMPTING_SETS:
        training, validation = (
            {one["image"] for one in records(folder / name, file)}
            for file in ("annotation_191-task_1k.json", "annotation_validation.json")
        )
        assert (len(training), len(validation)) == (30, 6)
        pictures = [digest(open_image(path, "")) for path in (folder / name / "images_191task_1k").iterdir()]
        assert len(set(pictures)) == 36
        data = VisionFlan(str(folder / name), "plain", batch_size=8, validation_file="annotation_validation.json")
        assert data.set_name == "vision_flan"


def test_answers_are_written_as_the_candidates_are_and_asked_in_the_sets_own_words(
    folder: Path, tmp_path: Path
) -> None:
    for name in ("cifar10", "mnist", "pope"):
        SETS[name](tmp_path, 0, TEST_SIZES)
    sets = {
        "cifar10": CIFAR10(str(tmp_path / "cifar10"), "plain"),
        "mnist": MNIST(str(tmp_path / "mnist"), "plain", candidates="words"),
        "pope": POPE(str(tmp_path / "pope"), "plain"),
        "counting": Questions(
            str(folder / "counting/test.jsonl"),
            "closed_set",
            "plain",
            image_root=str(folder / "counting/test_images"),
            classes=list(COUNTS),
        ),
    }
    for name, benchmark in sets.items():
        asked = answers(folder / name)
        assert {answer for _, answer in asked} <= set(benchmark.candidates), name
        assert len({answer for _, answer in asked}) >= min(4, len(benchmark.candidates))
        own = {question.text for question in benchmark.questions()}
        if name == "pope":
            assert {text.split()[-4] for text, _ in asked} <= set(SHAPES)
            assert all(
                text == f"Is there {article(text.split()[-4])} {text.split()[-4]} in the image?" for text, _ in asked
            )
        else:
            assert {text for text, _ in asked} == own
        tested = {digest(open_image(question.image, question.source)) for question in benchmark.questions()}
        trained = {digest(open_image(path, "")) for path in (folder / name / "images_191task_1k").iterdir()}
        assert not tested & trained


def test_answers_are_right() -> None:
    pope = POPEPictures(3, 40)
    statistics = NameStatistics(tuning_scene(3, "tuning", index) for index in range(40))
    for index in range(12):
        generator = random_generator(3, "prompting pope", TRAINING_PART, index)
        scene = sample_scene(generator, SceneKind.SHAPES_ONLY, count=generator.randint(3, 4))
        (yes, first), (no, second) = pope.picture(TRAINING_PART, index).questions
        assert (first, second) == ("Yes", "No")
        assert yes.split()[-4] in scene.names
        assert no.split()[-4] not in scene.names
        absent = scene.absent_names(SHAPES)
        if index % 3 == 1:
            assert no.split()[-4] == statistics.popular(absent)[0]
        if index % 3 == 2:
            assert no.split()[-4] == statistics.adversarial(absent, scene.names)[0]
    counts = Counter()
    for index in range(80):
        generator = random_generator(3, "prompting counting", VALIDATION_PART, index)
        scene = sample_scene(generator, count=generator.randint(1, 4))
        ((question, answer),) = counting_picture(3, VALIDATION_PART, index).questions
        assert (question, answer) == (HOW_MANY, str(len(scene.objects)))
        counts[answer] += 1
    assert set(counts) == {"1", "2", "3", "4"}
    assert min(counts.values()) > 10


def test_parts_and_seeds_have_pictures_of_their_own() -> None:
    drawn = [(0, TRAINING_PART, 0), (1, TRAINING_PART, 0), (0, VALIDATION_PART, 0), (0, TRAINING_PART, 1)]
    assert len({digest(cifar10_picture(*where).image) for where in drawn}) == 4
    assert digest(cifar10_picture(0, TRAINING_PART, 0).image) == digest(cifar10_picture(0, TRAINING_PART, 0).image)


def test_the_command_renders_them_below_the_root_alone_and_leaves_what_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    monkeypatch.setattr(prompting_render, "PromptingSizes", lambda: SMALL)
    assert main(["--root", str(tmp_path), "--prompting"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
    assert (tmp_path / FOLDER / MANIFEST).read_bytes() == (folder / MANIFEST).read_bytes()
    assert is_complete(tmp_path / FOLDER, 0, PROMPTING_SETS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(["--root", str(tmp_path), "--prompting"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert "complete" in capsys.readouterr().err
    with pytest.raises(BadInputError, match="--prompting --seed 1 --force"):
        main(["--root", str(tmp_path), "--prompting", "--seed", "1"])
    shutil.rmtree(tmp_path / FOLDER / "mnist")
    assert not is_complete(tmp_path / FOLDER, 0, PROMPTING_SETS)
