"""CIFAR-100: both kinds of label, pixels, the misspelt class, and other readers of what we write."""

from pathlib import Path

import pytest

from data_modules.cifar100 import CIFAR100, write_cifar100
from data_modules.reading.restricted_pickle import python2_pickle, read_batch
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.score import score
from tests.support.data_fixtures import fake_pictures

FINE, COARSE = ["aquarium_fish", "crab", "tank"], ["fish", "non-insect_invertebrates", "vehicles_2"]


def test_fine_and_coarse_labels_and_pixels_are_read(tmp_path: Path) -> None:
    for side in (24, 32):
        images = fake_pictures(4, side)
        write_cifar100(tmp_path, images, [0, 1, 2, 1], [0, 1, 2, 1], FINE, COARSE)
        write_cifar100(tmp_path, images[:1], [2], [2], FINE, COARSE, split="train")
        fine, coarse = CIFAR100(str(tmp_path), "plain"), CIFAR100(str(tmp_path), "plain", labels="coarse")
        assert all((question.image == image).all() for question, image in zip(fine.questions(), images, strict=True))
        assert [question.target for question in fine.questions()] == ["aquarium_fish", "crab", "tank", "crab"]
        assert [question.target for question in coarse.questions()] == [COARSE[label] for label in (0, 1, 2, 1)]
        assert (fine.classes, coarse.classes) == (FINE, COARSE)
        assert fine.data_revision != coarse.data_revision
        assert [question.target for question in CIFAR100(str(tmp_path), "plain", split="train").questions()] == ["tank"]


def test_the_file_has_the_official_keys(tmp_path: Path) -> None:
    CIFAR100.write_fake(tmp_path)
    folder = tmp_path / "cifar-100-python"
    assert set(read_batch(folder / "test")) == {"filenames", "batch_label", "fine_labels", "coarse_labels", "data"}
    assert set(read_batch(folder / "meta")) == {"fine_label_names", "coarse_label_names"}


def test_torchvision_reads_what_we_write(tmp_path: Path) -> None:
    from torchvision.datasets import CIFAR100 as TorchvisionCIFAR100

    class AnyCIFAR100(TorchvisionCIFAR100):
        test_list = [["test", None]]
        train_list = []
        meta = TorchvisionCIFAR100.meta | {"md5": None}

    images = fake_pictures(3, 32)
    write_cifar100(tmp_path, images, [0, 1, 2], [0, 1, 2], FINE, COARSE)
    theirs = AnyCIFAR100(str(tmp_path), train=False)
    assert (theirs.data == images).all()
    assert theirs.targets == [0, 1, 2]
    assert theirs.classes == FINE


def test_cra_is_repaired_to_crab(tmp_path: Path) -> None:
    write_cifar100(tmp_path, fake_pictures(1, 8), [1], [1], ["aquarium_fish", "cra", "tank"], COARSE)
    module = CIFAR100(str(tmp_path), "plain")
    assert module.classes == FINE
    assert module.questions()[0].target == "crab"


def test_answers_need_no_underscores(tmp_path: Path) -> None:
    CIFAR100.write_fake(tmp_path)
    module = CIFAR100(str(tmp_path), "plain")
    question = next(question for question in module.questions() if question.target == "pickup_truck")
    row = {"id": "1", "set": "cifar100", "subtask": "", "question": question.text, "target": question.target}
    row |= {"answer": "A pickup truck.", "image_id": question.image_id}
    assert score({"benchmark": "cifar100", "classes": module.classes}, [row], module.rules[0]).value == 100


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        ("test", {"fine_labels": [0, 1]}, "test: fine_labels: the number of labels"),
        ("test", {"fine_labels": [0, 1, 2, 0, 1, 3]}, "test: record 6: fine_labels: the label is 3"),
        ("meta", {"fine_label_names": "crab"}, "meta: fine_label_names: there are no class names"),
        ("meta", {"fine_label_names": ["crab", ""]}, "meta: fine_label_names: there are no class names"),
    ],
)
def test_labels_and_names_that_do_not_fit_are_refused(tmp_path: Path, file: str, change: dict, expected: str) -> None:
    CIFAR100.write_fake(tmp_path)
    path = tmp_path / "cifar-100-python" / file
    path.write_bytes(python2_pickle(read_batch(path) | change))
    with pytest.raises(BadInputError, match=expected):
        CIFAR100(str(tmp_path), "plain").questions()
