"""SNLI-VE: targets, the three spellings of the picture's key, and pictures of both kinds."""

import json
from pathlib import Path

import pytest
from PIL import Image

from data_modules.snli_ve import SNLIVE, SNLIVEItem, write_snli_ve
from lightning_m2pt.errors import BadInputError
from tests.support.data_fixtures import fake_pictures


def test_labels_become_answers_and_the_premise_is_never_shown(tmp_path: Path) -> None:
    labels = ("entailment", "neutral", "contradiction")
    images = fake_pictures(3, 8)
    items = [
        SNLIVEItem("12", image, f'A "{label}" is true. ', "Secret.", label, f"12.jpg#0r1{label[0]}")
        for image, label in zip(images, labels, strict=True)
    ]
    write_snli_ve(tmp_path, items, split="dev")
    questions = SNLIVE(str(tmp_path), "plain", split="dev").questions()
    assert [question.target for question in questions] == ["yes", "not sure", "no"]
    assert [question.id for question in questions] == ["dev/12.jpg#0r1e", "dev/12.jpg#0r1n", "dev/12.jpg#0r1c"]
    assert {question.image_id for question in questions} == {"12"}
    assert questions[0].text == (
        'Can you conclude "A "entailment" is true." from the content of the image? Please answer yes, no or not sure.'
    )
    assert not any("Secret" in question.text for question in questions)
    asked = SNLIVE(str(tmp_path), "plain", split="dev", question_template="True? {hypothesis}").questions()
    assert asked[1].text == 'True? A "neutral" is true.'


@pytest.mark.parametrize("key", ["Flickr30K_ID", "Flickr30kID", "Flikr30kID"])
def test_the_pictures_key_has_three_spellings(tmp_path: Path, key: str) -> None:
    SNLIVE.write_fake(tmp_path)
    expected = [question.image for question in SNLIVE(str(tmp_path), "plain").questions()]
    path = tmp_path / "snli_ve_test.jsonl"
    path.write_text(path.read_text().replace("Flickr30K_ID", key))
    assert [question.image for question in SNLIVE(str(tmp_path), "plain").questions()] == expected
    records = [json.loads(line) | {key: "../none"} for line in path.read_text().splitlines()]
    path.write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(BadInputError, match=f"snli_ve_test.jsonl:1: {key}: the image name"):
        SNLIVE(str(tmp_path), "plain").questions()


def test_the_official_jpeg_comes_before_a_png(tmp_path: Path) -> None:
    SNLIVE.write_fake(tmp_path)
    folder = tmp_path / "flickr30k_images"
    Image.open(folder / "fake_0.png").save(folder / "fake_0.jpg")
    module = SNLIVE(str(tmp_path), "plain", image_folder=str(folder))
    assert [question.image.name for question in module.questions()][::2] == ["fake_0.jpg", "fake_1.png", "fake_2.png"]
    module.check()


def test_a_question_without_a_place_for_the_hypothesis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"snli_ve\.question_template"):
        SNLIVE(str(tmp_path), "plain", question_template="True?")
