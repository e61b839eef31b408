"""What cannot fit into the language model's positions is refused, before weights load wherever that can be."""

import numpy
import pytest
import torch

from data_modules.vision_flan import VisionFlan
from experiments.configuration.cli import parse_experiment
from experiments.runs.lengths import check_question_lengths, check_sample_lengths
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.answering.likelihood import Candidates, candidate_log_probabilities
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.picture_batch import picture_batch
from lightning_m2pt.inputs.picture_layout import RunRows
from lightning_m2pt.inputs.processing import EncodedText
from lightning_m2pt.main import main
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.frozen import Frozen
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.testing.random_backbone import PATCHES, random_backbone, random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.positions import room_for_rows, rows_of_image
from tests.support.small_experiment import small_words

POSITIONS = 128
"""Of the random backbone; the embedded one has 512 and 36 patches."""
CONSTRUCTORS = {
    "visual_length": lambda size: M2PT(visual_length=size, visual_rows_to_text="none"),
    "textual_length": lambda size: M2PT(textual_length=size),
    "length": lambda size: PrefixTuning(length=size),
    "reparameterisation": lambda size: PrefixTuning(reparameterisation=size),
    "input_length": lambda size: APrompt(input_length=size),
    "attention_length": lambda size: APrompt(attention_length=size),
    "rank": lambda size: Lora(rank=size),
    "size": lambda size: Adapter(size=size),
}


@pytest.mark.parametrize("argument", CONSTRUCTORS)
@pytest.mark.parametrize("size", [10**9, 65_537, -1])
def test_an_absurd_size_is_refused_before_anything_is_made_of_it(argument, size):
    with pytest.raises(BadInputError, match=rf"model\.method\.{argument}: "):
        CONSTRUCTORS[argument](size)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_deviation_is_a_number(value):
    for make in (lambda: M2PT(init_std=value), lambda: Lora(alpha=value), lambda: PrefixTuning(init_std=value)):
        with pytest.raises(BadInputError, match="is not positive"):
            make()


METHODS = {
    "frozen": (Frozen, 0, 0),
    "m2pt": (lambda: M2PT(5, 4), 4, 5),
    "m2pt, all rows": (lambda: M2PT(5, 4, visual_rows_to_text="all"), 4, 5),
    "m2pt, patches": (lambda: M2PT(5, 4, visual_rows_to_text="none"), 4, 0),
    "prefix tuning": (lambda: PrefixTuning(6), 6, 0),
    "aprompt": (lambda: APrompt(3, 2), 5, 0),
    "combined": (lambda: Combined([M2PT(5, 4), Lora(2, interaction=False)]), 4, 5),
    "lora": (lambda: Lora(2), 0, 0),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_room_is_what_the_model_counts(tmp_path, name):
    """The declared rows are those of the attachment and of an assembled batch."""
    make, before_text, beside_patches = METHODS[name]
    backbone, method, batch = random_backbone(tmp_path), make(), random_batch()
    method.build(backbone, torch.Generator().manual_seed(0))
    method.attach(backbone)
    assert room_for_rows(backbone.shape, method) == POSITIONS - before_text
    assert backbone.attachment.rows_before_text() == before_text
    assert rows_of_image(backbone.shape, method) == PATCHES + beside_patches
    assert backbone.assemble(batch)[0].shape[1] == batch.input_ids.shape[1] - 1 + PATCHES + beside_patches


@pytest.mark.parametrize(
    "method",
    [
        M2PT(0, POSITIONS - PATCHES),
        M2PT(POSITIONS - PATCHES, 0),
        M2PT(50, 70),
        PrefixTuning(POSITIONS),
        APrompt(60, 60),
        Combined([M2PT(50, 70), Lora(2, interaction=False)]),
    ],
    ids=lambda method: method.name,
)
def test_prompts_that_leave_no_room_are_refused(tmp_path, method):
    shape = random_backbone(tmp_path)
    with pytest.raises(BadInputError, match="leave no room for a word"):
        TuningModule(shape, method).check()
    TuningModule(shape, M2PT(50, 60)).check()


def test_a_sequence_beyond_the_last_position_is_refused_on_every_path(tmp_path):
    backbone = random_backbone(tmp_path)
    for path in ("token", "auto"):
        method = M2PT(3, 4, path=path)
        method.build(backbone, torch.Generator().manual_seed(0))
        method.attach(backbone)
        most = POSITIONS - 4 - (PATCHES + 3) + 1  # the picture's rows take the place of one token
        supervised_rows(backbone, random_batch(text=most))
        with pytest.raises(BadInputError, match="a sequence has 129 rows"):
            supervised_rows(backbone, random_batch(text=most + 1))
        # Three samples, the last one a token shorter; a first token needs no position.
        assert all(answer.token_ids for answer in greedy_answers(backbone, random_batch(text=most), 1, -1))
        with pytest.raises(BadInputError, match="a sequence has 129 rows"):
            greedy_answers(backbone, random_batch(text=most), 2, end_token_id=-1)
        method.detach(backbone)


def by_picture(text, width=2):
    """Returns questions of ``text`` tokens, the picture one of them, ``width`` about each of two pictures."""
    batch = random_batch(2 * width, text)
    batch.input_ids[:, 0] = 3
    texts = [EncodedText(ids.numpy(), numpy.zeros(text, numpy.int8)) for ids in batch.input_ids]
    names = [[[f"{picture} {number}"] for number in range(width)] for picture in range(2)]
    return picture_batch(batch.pixel_values[:2], [texts[:width], texts[width:]], names)


def test_a_sequence_by_picture_is_as_long_as_one_question(tmp_path):
    backbone = random_backbone(tmp_path)
    method = PrefixTuning(4)
    method.build(backbone, torch.Generator().manual_seed(0))
    method.attach(backbone)
    assert backbone.shares_prefix()
    most = POSITIONS - 4 - PATCHES + 1
    candidates = Candidates(("a", "b"), ((5, 6, 7), (5, 8)))
    assert all(answer.token_ids for answer in greedy_answers(backbone, by_picture(most), 1, -1))
    greedy_answers(backbone, by_picture(most - 3), 4, -1)
    candidate_log_probabilities(backbone, by_picture(most - 2), candidates)
    with pytest.raises(BadInputError, match="a sequence has 129 rows"):
        greedy_answers(backbone, by_picture(most + 1), 1, -1)
    with pytest.raises(BadInputError, match="a sequence has 129 rows"):
        greedy_answers(backbone, by_picture(most - 3), 5, -1)
    with pytest.raises(BadInputError, match="a sequence has 129 rows"):
        candidate_log_probabilities(backbone, by_picture(most - 1), candidates)


def test_candidates_beyond_the_last_position_are_refused(tmp_path):
    backbone = random_backbone(tmp_path)
    most = POSITIONS - PATCHES + 1
    candidates = Candidates(("a", "b"), ((5, 6, 7), (5, 8)))
    assert candidate_log_probabilities(backbone, random_batch(text=most - 2), candidates).isfinite().all()
    with pytest.raises(BadInputError, match="a sequence has 129 rows"):
        candidate_log_probabilities(backbone, random_batch(text=most - 1), candidates)


def run(capfd, *words):
    code = main(list(words))
    captured = capfd.readouterr()
    return code, captured.out + captured.err


@pytest.mark.parametrize("verb", ["check", "fit"])
def test_a_sample_that_does_not_fit_is_refused(capfd, tmp_path, verb):
    words = [verb, *small_words(tmp_path), "--model.method.textual_length"]
    code, text = run(capfd, *words, "450")
    assert code == 2
    assert "rows with its picture" in text
    assert "expected: at most 62: the language model knows no later position" in text
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("verb", ["check", "fit", "params"])
def test_absurd_prompts_are_refused_by_every_verb(capfd, tmp_path, verb):
    code, text = run(capfd, verb, *small_words(tmp_path), "--model.method.textual_length", "1000000000")
    assert code == 2
    assert "model.method.textual_length: 1,000,000,000 is too large" in text


def test_the_longest_sample_fits_exactly_or_not(tmp_path):
    experiment = parse_experiment(small_words(tmp_path))
    experiment.connect()
    data = experiment.data
    assert isinstance(data, VisionFlan)
    data.setup()
    longest = max(len(text) for text in data.train_texts)
    data.check_lengths(RunRows(40), maximum_rows=longest + 39)
    with pytest.raises(BadInputError, match=f"has {longest + 39} rows with its picture"):
        data.check_lengths(RunRows(37, beside=3), maximum_rows=longest + 38)
    check_sample_lengths(experiment.model, data)


def test_a_question_leaves_room_for_the_answer(tmp_path):
    from data_modules.vsr import VSR

    VSR.write_fake(tmp_path / "vsr")
    benchmark = VSR(str(tmp_path / "vsr"), "plain", max_new_tokens=10**9)
    experiment = parse_experiment(small_words(tmp_path))
    benchmark.connect(experiment.model.backbone.processor())
    with pytest.raises(BadInputError, match="expected: at most 0: the language model"):
        check_question_lengths(experiment.model, benchmark, benchmark.max_new_tokens)
    check_question_lengths(experiment.model, benchmark, 8)
