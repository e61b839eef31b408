"""The hub's form of every set gives the questions of the original form: ids, texts, answers, pictures, fingerprint."""

import builtins
import json
from pathlib import Path

import numpy
import pytest
from PIL import Image

from data_modules.benchmark import BenchmarkDataModule
from data_modules.cifar10 import CIFAR10, write_cifar10
from data_modules.cifar100 import CIFAR100, write_cifar100
from data_modules.cifar100_names import COARSE_NAMES, FINE_NAMES
from data_modules.mme import MME
from data_modules.mnist import MNIST, write_mnist
from data_modules.pope import POPE
from data_modules.snli_ve import SNLIVE
from data_modules.text_vqa import TextVQA
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.inputs.images import open_image
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.inputs.stored_image import StoredImage
from lightning_m2pt.testing.small_processor import small_processor
from tests.support.data_fixtures import fake_pictures
from tests.support.hub_files import picture, write_parquet, write_shards


def said(question: Question) -> tuple:
    """What a question says, its picture decoded, without where it lies."""
    names, pixels = (question.id, question.subtask, question.image_id), numpy.asarray(open_image(question.image))
    return (*names, question.text, question.target, question.references, pixels.tobytes())


def assert_the_same(hub: BenchmarkDataModule, original: BenchmarkDataModule) -> None:
    for module in (hub, original):
        module.connect(small_processor(8))
        module.setup()
        module.check()
    assert [said(question) for question in hub.questions()] == [said(question) for question in original.questions()]
    assert hub.data_revision == original.data_revision
    assert all(batch.pixel_values.shape[1:] == (3, 8, 8) for batch in hub.predict_dataloader())


def mme_rows(module: MME) -> list[dict]:
    return [
        {
            "question_id": f"{question.subtask}/{question.image_id}",
            "image": picture(question.image),
            "question": question.text,
            "answer": question.target,
            "category": question.subtask,
        }
        for question in module.questions()
    ]


def test_mme(tmp_path: Path) -> None:
    MME.write_fake(tmp_path / "original")
    original = MME(str(tmp_path / "original"), "plain")
    rows = mme_rows(original)
    # The hub's subtasks and pairs come in another order, and its four files have hashes in their names.
    rows = sorted(reversed(rows), key=lambda row: row["category"])
    for number in range(4):
        name = f"test-{number:05d}-of-00004-a25dbe3b44c4fda{number}.parquet"
        write_parquet(tmp_path / "hub" / "data" / name, rows[3 * number : 3 * number + 3])
    hub = MME(str(tmp_path / "hub"), "plain")
    assert_the_same(hub, original)
    assert [question.id for question in hub.questions()][:2] == ["existence/fake_0.png/1", "existence/fake_0.png/2"]
    first, second = hub.questions()[:2]
    assert first.image == second.image
    assert isinstance(first.image, StoredImage)


def test_mme_in_the_release_folder_and_as_m2pts_question_file(tmp_path: Path) -> None:
    MME.write_fake(tmp_path / "MME_Benchmark_release_version")
    original = MME(str(tmp_path / "MME_Benchmark_release_version"), "plain")
    assert_the_same(MME(str(tmp_path), "plain"), original)
    records = [
        {
            "question_id": f"{question.subtask}/{question.image_id}",
            "image": f"{question.subtask}/{question.image_id}",
            "text": question.text,
            "target": question.target,
            "category": question.subtask,
        }
        for question in reversed(original.questions()[::2])
    ]
    for record, question in zip(list(records), list(reversed(original.questions()[1::2])), strict=True):
        records.insert(records.index(record) + 1, record | {"text": question.text, "target": question.target})
    (tmp_path / "mme.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert_the_same(MME(str(tmp_path), "plain", question_file="mme.jsonl"), original)
    del records[3]["target"]
    (tmp_path / "mme.jsonl").write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(BadInputError, match=r"mme.jsonl:4: the key 'target' is missing"):
        MME(str(tmp_path), "plain", question_file="mme.jsonl").questions()


def pope_rows(module: POPE, with_ending: bool) -> list[dict]:
    return [
        {
            "id": str(number),
            "question_id": question.id.split("/")[1],
            "question": question.text,
            "answer": question.target,
            "image_source": question.image_id if with_ending else Path(question.image_id).stem,
            "image": picture(question.image),
            "category": question.subtask,
        }
        for number, question in enumerate(module.questions())
    ]


def jpeg_pope(root: Path) -> POPE:
    """Writes POPE with the endings of COCO's pictures."""
    POPE.write_fake(root)
    for path in (root / "images").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    for path in root.glob("*.json"):
        path.write_text(path.read_text().replace(".png", ".jpg"))
    return POPE(str(root), "plain")


@pytest.mark.parametrize("with_ending", [True, False])
def test_pope_in_both_configurations(tmp_path: Path, with_ending: bool) -> None:
    original = jpeg_pope(tmp_path / "original")
    rows = pope_rows(original, with_ending)
    write_shards(tmp_path / "default" / "data", "test", sorted(rows, key=lambda row: row["category"]), shards=3)
    assert_the_same(POPE(str(tmp_path / "default"), "plain"), original)
    for split in ("adversarial", "popular", "random"):
        of_split = [row for row in rows if row["category"] == split]
        write_shards(tmp_path / "full" / "Full", split, of_split, shards=1)
    assert_the_same(POPE(str(tmp_path / "full"), "plain"), original)
    write_shards(tmp_path / "full" / "data", "test", rows)
    both = POPE(str(tmp_path / "full"), "plain")
    assert_the_same(both, original)
    assert {question.image.path.parent.name for question in both.questions()} == {"Full"}
    assert len({question.image for question in both.questions()}) == 2  # the three files show the same pictures


def test_cifar10(tmp_path: Path) -> None:
    images, names = fake_pictures(11, 24), ["airplane", "automobile", "cat"]
    labels = [number % 3 for number in range(11)]
    rows = [{"img": picture(image), "label": label} for image, label in zip(images, labels, strict=True)]
    for split in ("train", "test"):
        write_cifar10(tmp_path / "original", images, labels, names, split=split)
        write_shards(tmp_path / "hub" / "plain_text", split, rows, image_column="img", class_names={"label": names})
        hub, original = (CIFAR10(str(tmp_path / form), "plain", split=split) for form in ("hub", "original"))
        assert_the_same(hub, original)
        assert hub.classes == original.classes == names


def test_cifar100_and_its_misspelt_class(tmp_path: Path) -> None:
    images = fake_pictures(6, 24)
    fine_names, coarse_names = ["aquarium_fish", "crab", "pickup_truck"], ["fish", "vehicles_1"]
    fine, coarse = [0, 1, 2, 2, 1, 0], [0, 1, 0, 1, 0, 1]
    write_cifar100(tmp_path / "original", images, fine, coarse, fine_names, coarse_names)
    rows = [
        {"img": picture(image), "fine_label": label, "coarse_label": group}
        for image, label, group in zip(images, fine, coarse, strict=True)
    ]
    names = {"fine_label": ["aquarium_fish", "cra", "pickup_truck"], "coarse_label": coarse_names}
    write_shards(tmp_path / "hub" / "cifar100", "test", rows, image_column="img", class_names=names)
    for labels in ("fine", "coarse"):
        hub, original = (CIFAR100(str(tmp_path / form), "plain", labels=labels) for form in ("hub", "original"))
        assert_the_same(hub, original)
        assert hub.classes == original.classes
    assert CIFAR100(str(tmp_path / "hub"), "plain").questions()[1].target == "crab"


def test_known_names_stand_in_for_missing_metadata(tmp_path: Path) -> None:
    rows = [{"image": picture(image), "fine_label": 26, "coarse_label": 13} for image in fake_pictures(2, 8)]
    write_shards(tmp_path, "test", rows)
    assert CIFAR100(str(tmp_path), "plain").questions()[0].target == "crab"
    assert CIFAR100(str(tmp_path), "plain", labels="coarse").questions()[0].target == "non-insect_invertebrates"
    assert (len(set(FINE_NAMES)), len(set(COARSE_NAMES))) == (100, 20)


def test_mnist_stays_grey_until_a_model_looks(tmp_path: Path) -> None:
    images = fake_pictures(7, 20)[:, :, :, 0]
    write_mnist(tmp_path / "original", images, list(range(7)))
    rows = [{"image": picture(image), "label": label} for label, image in enumerate(images)]
    write_shards(tmp_path / "hub" / "mnist", "test", rows, class_names={"label": list("0123456789")})
    hub, original = (MNIST(str(tmp_path / form), "plain") for form in ("hub", "original"))
    assert_the_same(hub, original)
    assert {question.image.shape for question in hub.questions()} == {(20, 20)}
    shown = open_image(hub.questions()[0].image)
    assert shown.mode == "RGB"
    assert (numpy.asarray(shown)[:, :, 2] == images[0]).all()


def test_mnist_where_torchvision_put_it(tmp_path: Path) -> None:
    MNIST.write_fake(tmp_path)
    expected = MNIST(str(tmp_path), "plain").data_revision
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for path in list(tmp_path.glob("*ubyte")):
        path.rename(tmp_path / "MNIST" / "raw" / path.name)
    assert MNIST(str(tmp_path), "plain").data_revision == expected


@pytest.mark.parametrize("metadata", [None, {"label": ["contradiction", "neutral", "entailment"]}])
def test_snli_ve_has_its_own_ids_and_nothing_else(tmp_path: Path, metadata: dict | None) -> None:
    SNLIVE.write_fake(tmp_path / "original")
    original = SNLIVE(str(tmp_path / "original"), "plain").questions()
    names = list(metadata["label"]) if metadata else ["entailment", "neutral", "contradiction"]
    gold = {"yes": "entailment", "not sure": "neutral", "no": "contradiction"}
    rows = [
        {
            "image": picture(question.image),
            "filename": f"{question.image_id}.jpg",
            "premise": "A room with tables.",
            "hypothesis": question.text.split('"')[1],
            "label": names.index(gold[question.target]),
        }
        for question in original
    ]
    write_shards(tmp_path / "hub" / "data", "test", rows, class_names=metadata)
    write_shards(tmp_path / "hub" / "data", "validation", rows[:4], class_names=metadata)
    hub = SNLIVE(str(tmp_path / "hub"), "plain")
    hub.check()
    assert [said(question)[1:] for question in hub.questions()] == [said(question)[1:] for question in original]
    assert [question.id for question in hub.questions()] == [f"test/{number}" for number in range(1, 7)]
    assert len(SNLIVE(str(tmp_path / "hub"), "plain", split="dev").questions()) == 4


def test_text_vqa(tmp_path: Path) -> None:
    TextVQA.write_fake(tmp_path / "original")
    original = TextVQA(str(tmp_path / "original"), "plain")
    rows = [
        {
            "image_id": question.image_id,
            "question_id": int(question.id.split("/")[1]),
            "question": question.text,
            "question_tokens": question.text.split(),
            "image": picture(question.image),
            "answers": list(question.references),
            "set_name": "val",
        }
        for question in original.questions()
    ]
    write_shards(tmp_path / "hub" / "data", "validation", rows, shards=3)
    assert_the_same(TextVQA(str(tmp_path / "hub"), "plain"), original)


def test_two_forms_in_one_root_are_refused(tmp_path: Path) -> None:
    for module in (MME, POPE, CIFAR10, CIFAR100, MNIST, SNLIVE, TextVQA):
        root = tmp_path / module.name
        module.write_fake(root)
        for split in ("test", "validation"):
            write_parquet(root / "data" / f"{split}-00000-of-00001.parquet", [{"image": picture(b"x"), "label": 0}])
        with pytest.raises(BadInputError, match=r"the set is there twice: .* and data/") as caught:
            module(str(root), "plain").questions()
        assert len(str(caught.value).split("\n")) == 3


def test_a_root_with_neither_form_says_what_would_be_read(tmp_path: Path) -> None:
    for module in (MME, POPE, CIFAR10, CIFAR100, MNIST, SNLIVE, TextVQA):
        with pytest.raises(BadInputError) as caught:
            module(str(tmp_path / module.name), "plain").questions()
        assert "Parquet files" in caught.value.expected
        assert len(str(caught.value).split("\n")) <= 3


def cifar_rows(count: int = 4) -> list[dict]:
    return [{"img": picture(image), "label": 1} for image in fake_pictures(count, 8)]


SPOILT = [
    (lambda rows: [row | {"label": 10} for row in rows], "row 1: label: the label is 10"),
    (lambda rows: [*rows[:2], rows[2] | {"label": None}, rows[3]], "row 3: label: the label is None"),
    (lambda rows: [*rows[:2], rows[2] | {"img": {"bytes": None, "path": "a.png"}}, rows[3]], "row 3: img: the row has"),
    (lambda rows: [*rows[:2], rows[2] | {"img": picture(b"<html>")}, rows[3]], "row 3: img: .*HTML page"),
    (lambda rows: [*rows[:2], rows[2] | {"img": picture(b"")}, rows[3]], "row 3: img: this is not an image"),
    (lambda rows: [*rows, rows[0] | {"img": picture(fake_pictures(1, 9)[0])}], "row 5: the picture's shape is"),
    (lambda rows: [row | {"img": picture(numpy.zeros((300, 300), numpy.uint8))} for row in rows], "too many pixels"),
    (lambda rows: [{"img": row["img"], "fine_label": 1} for row in rows], "there is no column label"),
    (
        lambda rows: [{"picture": 1, "label": row["label"]} for row in rows],
        "no column of pictures among picture, label",
    ),
    (lambda rows: [{"img": None, "label": row["label"]} for row in rows], "row 1: img: the row has no picture"),
]


@pytest.mark.parametrize(("spoil", "expected"), SPOILT, ids=lambda value: value if isinstance(value, str) else "")
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, spoil, expected: str) -> None:
    write_parquet(tmp_path / "test.parquet", spoil(cifar_rows()), image_column="img")
    with pytest.raises(BadInputError, match=expected) as caught:
        CIFAR10(str(tmp_path), "plain").questions()
    assert "test.parquet" in caught.value.where
    assert len(str(caught.value).split("\n")) <= 3


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, "test", cifar_rows(6), shards=3, image_column="img")
    path = tmp_path / "test-00001-of-00003.parquet"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(BadInputError, match="2 of the split's 3 Parquet files are there"):
        CIFAR10(str(tmp_path), "plain").questions()
    for spoilt in (
        b"",
        content[:-200],
        content[:4] + bytes(200) + content[204:],
        b"no parquet at all, but long enough",
    ):
        path.write_bytes(spoilt)
        with pytest.raises(BadInputError, match=r"cannot be read|has changed|row") as caught:
            CIFAR10(str(tmp_path), "plain").questions()
        assert len(str(caught.value).split("\n")) <= 3
    path.write_bytes(content.replace(b"label", b"lab\xff\xff"))
    with pytest.raises(BadInputError, match=r"cannot be read: 'utf-8' codec"):
        CIFAR10(str(tmp_path), "plain").questions()
    path.write_bytes(content)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "test.parquet").write_bytes(content)
    with pytest.raises(BadInputError, match="in 2 folders"):
        CIFAR10(str(tmp_path), "plain").questions()


@pytest.mark.parametrize("metadata", ["[]", "{", '{"info": {}}', '{"info": {"features": {"label": {"names": [""]}}}}'])
def test_metadata_without_names_are_refused(tmp_path: Path, metadata: str) -> None:
    import pyarrow.parquet

    path = write_parquet(tmp_path / "test.parquet", cifar_rows(), image_column="img")
    table = pyarrow.parquet.read_table(path).replace_schema_metadata({"huggingface": metadata})
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(BadInputError, match=r"test.parquet: metadata"):
        CIFAR10(str(tmp_path), "plain").questions()


def test_mme_pairs_and_pope_categories_are_checked(tmp_path: Path) -> None:
    MME.write_fake(tmp_path / "mme_original")
    rows = mme_rows(MME(str(tmp_path / "mme_original"), "plain"))
    for spoilt, expected in (
        (rows[:-1], "the image 'fake_1.jpg' has 1 questions"),
        ([rows[0] | {"category": "animals"}, *rows[1:]], "row 1: category: the value is 'animals'"),
        ([rows[0] | {"answer": "yes"}, *rows[1:]], "row 1: answer: the value is 'yes'"),
    ):
        write_parquet(tmp_path / "mme" / "test.parquet", spoilt)
        with pytest.raises(BadInputError, match=expected):
            MME(str(tmp_path / "mme"), "plain").questions()
    POPE.write_fake(tmp_path / "pope_original")
    rows = pope_rows(POPE(str(tmp_path / "pope_original"), "plain"), with_ending=True)
    for split, spoilt, expected in (
        ("random", rows, "category: the value is 'popular'"),
        ("test", [rows[0] | {"category": "easy"}, *rows[1:]], "row 1: category: the value is 'easy'"),
        ("test", [rows[0] | {"answer": "Yes"}, *rows[1:]], "row 1: answer: the value is 'Yes'"),
        ("test", [*rows, rows[0]], "'random/1' is there twice"),
    ):
        for path in (tmp_path / "pope").glob("*"):
            path.unlink()
        write_parquet(tmp_path / "pope" / f"{split}.parquet", spoilt)
        with pytest.raises(BadInputError, match=expected):
            POPE(str(tmp_path / "pope"), "plain").questions()


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "test.parquet", cifar_rows(), image_column="img")
    import_module = builtins.__import__

    def without_pyarrow(name: str, *arguments: object, **options: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return import_module(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(EnvironmentFailure, match=r"pip install .*\[hub\]") as caught:
        CIFAR10(str(tmp_path), "plain").questions()
    assert len(str(caught.value).split("\n")) == 3
