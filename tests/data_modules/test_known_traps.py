"""Traps of the real sets that have cost others numbers, on invented data in the real form."""

import json
from pathlib import Path

import numpy
import pytest

from data_modules.cifar10 import CIFAR10
from data_modules.mme import MME
from data_modules.pope import POPE
from data_modules.reading.files import write_image, write_text
from data_modules.vsr import VSR
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.stored_image import ROW_GROUPS
from lightning_m2pt.testing.small_processor import small_processor
from tests.support.data_fixtures import fake_pictures
from tests.support.hub_files import picture, write_parquet, write_shards

COCO = "http://images.cocodataset.org/{part}/{name}"
ZEROSHOT = {"relation": "behind", "subj": "car", "obj": "suitcase", "annotator_id": 2}
RANDOM = {"relation": "behind", "reference_frame": "intrinsic", "annotator_id": 2}
VOTES = {"vote_true_validator_id": "[18, 2]", "vote_false_validator_id": "[1]"}


def vsr_clone(root: Path) -> None:
    """Writes a clone of VSR's repository with pictures from both parts of COCO, each in its own folder."""
    for variant, fields in (("zeroshot", ZEROSHOT), ("random", RANDOM)):
        lines = []
        for number, part in enumerate(("train2017", "val2017")):
            name = f"00000001769{number}.jpg"
            write_image(root / "images" / part / name, fake_pictures(1 + number, 8)[0])
            caption = f"The car is behind the {variant} suitcase."
            link = {"image": name, "image_link": COCO.format(part=part, name=name), "caption": caption}
            lines.append(json.dumps(link | {"label": number} | fields | VOTES))
        path = root / "data" / "splits" / variant / "test.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n")


def test_both_ways_to_split_vsr_are_read_from_a_clone(tmp_path: Path) -> None:
    vsr_clone(tmp_path)
    for variant in ("zeroshot", "random"):
        module = VSR(str(tmp_path), "plain", variant=variant)
        module.connect(small_processor(8))
        module.check()
        assert [question.target for question in module.questions()] == ["no", "yes"]
        assert all(variant in question.text for question in module.questions())
        assert [question.image.parent.name for question in module.questions()] == ["train2017", "val2017"]
    # The hub's copy is the file alone, in the root or in a folder of its own.
    for place in (tmp_path / "hub", tmp_path / "hub" / "random"):
        place.mkdir()
        (place / "test.jsonl").write_bytes((tmp_path / "data/splits/random/test.jsonl").read_bytes())
        hub = VSR(str(tmp_path / "hub"), "plain", variant="random", image_folder=str(tmp_path / "images"))
        expected = VSR(str(tmp_path), "plain", variant="random")
        assert [(q.id, q.text, q.image) for q in hub.questions()] == [
            (q.id, q.text, q.image) for q in expected.questions()
        ]
        (place / "test.jsonl").unlink()


def test_vsrs_random_split_is_read_beside_the_fetched_zero_shot_files(tmp_path: Path) -> None:
    """`m2pt data fetch vsr` puts the zero-shot files into the root, and its instructions the random ones below it."""
    vsr_clone(tmp_path)
    splits = tmp_path / "data" / "splits"
    (splits / "zeroshot" / "test.jsonl").rename(tmp_path / "test.jsonl")
    (splits / "random").rename(tmp_path / "random")
    for variant in ("zeroshot", "random"):
        questions = VSR(str(tmp_path), "plain", variant=variant).questions()
        assert all(variant in question.text for question in questions)


def test_a_flat_folder_of_coco_pictures_comes_first(tmp_path: Path) -> None:
    vsr_clone(tmp_path)
    (tmp_path / "images" / "val2017" / "000000017691.jpg").rename(tmp_path / "images" / "000000017691.jpg")
    (tmp_path / "images" / "train2017" / "000000017690.jpg").unlink()
    with pytest.raises(BadInputError, match=r"1 of 2 images are missing: .*images/000000017690\.jpg"):
        VSR(str(tmp_path), "plain").check()
    assert VSR(str(tmp_path), "plain").questions()[1].image == tmp_path / "images" / "000000017691.jpg"


def test_a_link_cannot_lead_out_of_the_pictures(tmp_path: Path) -> None:
    vsr_clone(tmp_path)
    path = tmp_path / "data" / "splits" / "zeroshot" / "test.jsonl"
    path.write_text(path.read_text().replace("org/train2017", "org/..").replace("val2017", "other"))
    with pytest.raises(BadInputError, match="2 of 2 images are missing"):
        VSR(str(tmp_path), "plain").check()


@pytest.mark.parametrize("source", ["aokvqa", "gqa"])
@pytest.mark.parametrize("in_clone", [True, False])
def test_popes_variants_are_indented_lists(tmp_path: Path, source: str, in_clone: bool) -> None:
    POPE.write_fake(tmp_path)
    expected = [(question.id, question.text, question.target) for question in POPE(str(tmp_path), "plain").questions()]
    folder = tmp_path / "output" / "seem" / source if in_clone else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("random", "popular", "adversarial"):
        lines = (tmp_path / f"coco_pope_{split}.json").read_text().splitlines()
        listed = json.dumps([json.loads(line) for line in lines], indent=4)
        (folder / f"{source}_pope_seem_{split}.json").write_text(listed)
    module = POPE(str(tmp_path), "plain", objects_from=source)
    assert [(question.id, question.text, question.target) for question in module.questions()] == expected
    assert f"{source}_pope_seem_random.json: record 1" in module.questions()[0].source


def test_pope_is_read_from_a_clone(tmp_path: Path) -> None:
    POPE.write_fake(tmp_path)
    expected = POPE(str(tmp_path), "plain").data_revision
    (tmp_path / "output" / "coco").mkdir(parents=True)
    for path in tmp_path.glob("*.json"):
        path.rename(tmp_path / "output" / "coco" / path.name)
    assert POPE(str(tmp_path), "plain").data_revision == expected


def test_mme_names_recur_in_subtasks_and_pictures_have_two_endings(tmp_path: Path) -> None:
    text = "Is it so? Please answer yes or no.\tYes\nIs it not? Please answer yes or no.\tNo\n"
    for subtask, ending in (("existence", "jpg"), ("count", "jpg"), ("code_reasoning", "png")):
        write_image(tmp_path / subtask / f"0001.{ending}", fake_pictures(1, 8)[0])
        write_text(tmp_path / subtask / "0001.txt", text)
        (tmp_path / subtask / "._0001.txt").write_bytes(b"\0\5\x16\7 what a Mac leaves in an archive \xff")
    write_image(tmp_path / "artwork" / "images" / "0001.jpg", fake_pictures(1, 8)[0])
    write_text(tmp_path / "artwork" / "questions_answers_YN" / "0001.txt", text)
    module = MME(str(tmp_path), "plain")
    module.connect(small_processor(8))
    module.check()
    names = [f"{subtask}/0001" for subtask in ("existence", "count", "artwork", "code_reasoning")]
    endings = ["jpg", "jpg", "jpg", "png"]
    pairs = zip(names, endings, strict=True)
    assert [question.id for question in module.questions()] == [f"{a}.{b}/{n}" for a, b in pairs for n in (1, 2)]


def test_random_damage_to_a_parquet_file_never_ends_in_another_error(tmp_path: Path) -> None:
    rows = [{"img": picture(image), "label": 1} for image in fake_pictures(6, 8)]
    path = write_parquet(tmp_path / "test.parquet", rows, image_column="img", class_names={"label": ["a", "b"]})
    whole, chance = path.read_bytes(), numpy.random.default_rng(3)
    refused = 0
    for _ in range(150):
        content = bytearray(whole)
        for position in chance.integers(len(content), size=4):
            content[position] = chance.integers(256)
        path.write_bytes(content)
        ROW_GROUPS.groups.clear()
        try:
            CIFAR10(str(tmp_path), "plain").questions()
        except BadInputError:
            refused += 1
    assert refused > 100


def hub_rows(count: int) -> list[dict]:
    return [{"img": picture(image), "label": 1} for image in fake_pictures(count, 8)]


@pytest.mark.parametrize(
    "other",
    [
        "test.parquet",
        "test-00000-of-00001.parquet",
        "test-00000-of-00003.parquet",
        "test-00002-of-00003.parquet",
        "test-00000-of-00002-0123456789abcdef.parquet",
    ],
)
def test_files_of_two_copies_are_refused(tmp_path: Path, other: str) -> None:
    write_shards(tmp_path / "data", "test", hub_rows(4), shards=2, image_column="img")
    assert len(CIFAR10(str(tmp_path), "plain").questions()) == 4
    write_parquet(tmp_path / "data" / other, hub_rows(2), "img")
    with pytest.raises(BadInputError, match="belong to two copies of the split 'test'") as caught:
        CIFAR10(str(tmp_path), "plain").questions()
    assert other in str(caught.value)


def test_hidden_folders_are_passed_over_but_not_a_hidden_root(tmp_path: Path) -> None:
    root = tmp_path / ".sets"
    write_parquet(root / "test.parquet", hub_rows(2), "img")
    write_parquet(root / ".cache" / "test.parquet", hub_rows(3), "img")
    assert len(CIFAR10(str(root), "plain").questions()) == 2
