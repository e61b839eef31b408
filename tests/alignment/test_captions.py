"""What a picture's caption says, how it is asked for, and that gates show what no training picture does."""

import numpy
import pytest

from experiments.alignment import caption_sets
from experiments.alignment.caption_sets import TRAINING_PART, UNSEEN_PART, caption_records
from experiments.alignment.captions import INSTRUCTIONS, caption
from experiments.alignment.settings import ALIGNMENTS
from experiments.testbed.rendering import Domain, ScanSplit, digit_scans
from experiments.testbed.scenes import Scene, SceneObject, random_generator
from experiments.testbed.vocabulary import SIZES, article

ZERO = SceneObject("zero", "green", "small", "middle", "right")
CIRCLE = SceneObject("circle", "yellow", "large", "bottom", "right")
BAR = SceneObject("bar", "cyan", "small", "top", "center")


@pytest.mark.parametrize(
    ("things", "said"),
    [
        ((ZERO,), "The image shows a small green zero at the middle right."),
        (
            (ZERO, CIRCLE),
            "The image shows a small green zero at the middle right and a large yellow circle at the bottom right.",
        ),
        (
            (BAR, ZERO, CIRCLE),
            "The image shows a small cyan bar at the top center, a small green zero at the middle right"
            " and a large yellow circle at the bottom right.",
        ),
    ],
)
def test_a_caption_is_one_sentence_in_reading_order(things, said):
    assert caption(Scene(things)) == said


def test_articles_are_those_of_the_sizes_and_nothing_is_asked():
    assert {article(size) for size in SIZES} == {"a"}
    assert not any("?" in each for each in INSTRUCTIONS)
    assert len(set(INSTRUCTIONS)) == 3
    records = [*caption_records(0, TRAINING_PART, 40), *caption_records(0, UNSEEN_PART, 20)]
    assert not any("?" in record.instruction + record.answer for record in records)
    assert {record.instruction for record in records} == set(INSTRUCTIONS)


def test_the_parts_are_as_large_as_said_and_share_neither_names_nor_scenes():
    settings = ALIGNMENTS["smollm2_dinov2"]
    assert (settings.pictures, settings.unseen) == (16_000, 400)
    training, unseen = list(caption_records(3, TRAINING_PART, 30)), list(caption_records(3, UNSEEN_PART, 30))
    assert (len(training), len(unseen)) == (30, 30)
    assert not {record.image_name for record in training} & {record.image_name for record in unseen}
    assert [record.answer for record in training] != [record.answer for record in unseen]
    assert not any(numpy.array_equal(one.image, other.image) for one, other in zip(training, unseen, strict=True))


def test_unseen_pictures_show_other_scans_in_the_domain_of_pretraining(monkeypatch):
    shown = []
    monkeypatch.setattr(
        caption_sets, "render", lambda scene, generator, domain, scans: shown.append((domain, scans)) or scene
    )
    list(caption_records(0, TRAINING_PART, 3))
    list(caption_records(0, UNSEEN_PART, 2))
    assert shown == [(Domain.PRETRAINING, ScanSplit.TRAINING)] * 3 + [(Domain.PRETRAINING, ScanSplit.EVALUATION)] * 2
    training, evaluation = (digit_scans(split)[0] for split in (ScanSplit.TRAINING, ScanSplit.EVALUATION))
    assert (len(training), len(evaluation)) == (1200, 597)


def test_a_seed_decides_every_picture_and_word():
    first, again, other = (list(caption_records(seed, TRAINING_PART, 5)) for seed in (1, 1, 2))
    for one, same in zip(first, again, strict=True):
        assert (one.answer, one.instruction) == (same.answer, same.instruction)
        assert numpy.array_equal(one.image, same.image)
    assert [record.answer for record in first] != [record.answer for record in other]


def test_pictures_of_two_seeds_differ_where_their_scenes_do_not(monkeypatch):
    monkeypatch.setattr(caption_sets, "random_generator", lambda seed, *names: random_generator(0, *names))
    one, other = (next(caption_records(seed, TRAINING_PART, 1)) for seed in (1, 2))
    assert one.answer == other.answer
    assert not numpy.array_equal(one.image, other.image)
