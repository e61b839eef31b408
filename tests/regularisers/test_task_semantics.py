"""Task semantics: the score against open_clip's own functions, its sign, its texts, teachers that do not fit."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity, interpolate

from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.processing import Processor
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW, Schedule
from lightning_m2pt.tuning.regularisers.feature_consistency import FeatureConsistency
from lightning_m2pt.tuning.regularisers.open_clip_teacher import OpenClipTeacher
from lightning_m2pt.tuning.regularisers.rows_teacher import RowsTeacher
from lightning_m2pt.tuning.regularisers.seen_pictures import SeenPictures
from lightning_m2pt.tuning.regularisers.step_terms import measured
from lightning_m2pt.tuning.regularisers.task_semantics import TaskSemantics
from tests.support.regularised.small_clip import PICTURES, VISION, small_clip, stored_clip
from tests.support.regularised.steps import BORDER, DELTA, Logged, parts_of, several_pictures, with_counts
from tests.support.small_training import Gradients, loader_of, module_with, small_trainer

ANSWERS = [("red car",), ("dog",), ("red car", "two dogs.")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return stored_clip(tmp_path_factory.mktemp("clip"))


def of_three(batch: Batch) -> Batch:
    [counted] = with_counts([batch])
    return replace(counted, answers=ANSWERS)


def prompted(tmp_path: Path, term: TaskSemantics, **settings) -> TuningModule:
    module = module_with(tmp_path, PixelPrompting(BORDER), regularisers=[term], **settings)
    prompt = module.backbone.attachment.pixel_prompt
    with torch.no_grad():
        prompt.delta.add_(0.3 * torch.randn(prompt.delta.shape, generator=torch.Generator().manual_seed(5)))
    term.build(module.backbone)
    return module


def cosines(module: TuningModule, batch: Batch, texts: list[str]) -> torch.Tensor:
    """(I, T), with open_clip's own functions: pixels are those of the tower, resized, in CLIP's normalisation."""
    import open_clip

    model, prompt = small_clip(), module.backbone.attachment.pixel_prompt
    with torch.no_grad():
        pixels = (batch.pixel_values + prompt.learned() / 0.5) * 0.5 + 0.5
        resized = interpolate(pixels, size=VISION["image_size"], mode="bicubic", antialias=True)
        mean, std = (torch.tensor(PICTURES[name])[:, None, None] for name in ("mean", "std"))
        pictures = model.encode_image((resized - mean) / std)
        of_texts = model.encode_text(open_clip.tokenize(texts, 12))
    return cosine_similarity(pictures[:, None], of_texts[None], dim=-1)


@pytest.mark.parametrize("factor", ["published", "cosine"])
def test_the_value_is_the_mean_score_of_a_pictures_answers(tmp_path, folder, factor):
    term = TaskSemantics(OpenClipTeacher(str(folder)), 0.1, factor)
    module, batch = prompted(tmp_path, term), of_three(random_batch())
    [total] = measured(module.backbone, batch, module.shortcuts, [term]).sums
    texts = [f"this is a photo of a {answer}" for answer in ("red car", "dog", "two dogs")]
    by_hand = cosines(module, batch, texts)
    expected = by_hand[0, 0] + by_hand[1, 1] + (by_hand[2, 0] + by_hand[2, 2]) / 2
    assert float(by_hand.std()) > 0.05
    scale = math.exp(3.0) if factor == "published" else 1.0
    assert float(total.detach()) == pytest.approx(float(expected) * scale, rel=1e-4)


def test_the_teacher_computes_in_float32_whatever_the_precision(tmp_path, folder):
    term = TaskSemantics(OpenClipTeacher(str(folder)), 0.1)
    module, batch = prompted(tmp_path, term), of_three(random_batch())
    shown = SeenPictures(module.backbone, batch, module.backbone.connected_rows(batch.pixel_values))
    expected = term.summed(shown, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = term.summed(shown, None)
        assert torch.equal(found, expected)
        pictures = term.teacher.picture_features(shown.pixels())
    assert not torch.equal(pictures, term.teacher.picture_features(shown.pixels()))


def test_pictures_go_by_their_samples(tmp_path, folder):
    """Two pictures of the first sample have its answer, the second sample's its own, the third has none."""
    term = TaskSemantics(OpenClipTeacher(str(folder)), 0.1, "cosine", text="{answer}")
    module, batch = prompted(tmp_path, term), of_three(several_pictures())
    [total] = measured(module.backbone, batch, module.shortcuts, [term]).sums
    by_hand = cosines(module, batch, ["red car", "dog"])
    assert float(total.detach()) == pytest.approx(float(by_hand[0, 0] + by_hand[1, 0] + by_hand[2, 1]), rel=1e-4)


def test_the_factor_is_at_most_a_hundred_and_at_least_one(tmp_path):
    for number, (logit_scale, expected) in enumerate([(10.0, 100.0), (-1.0, 1.0), (2.0, math.exp(2.0))]):
        teacher = OpenClipTeacher(str(stored_clip(tmp_path / str(number), small_clip(logit_scale))))
        teacher.build()
        assert teacher.scale() == pytest.approx(expected, rel=1e-6)


def test_a_step_of_the_gradient_raises_the_score(tmp_path, folder):
    """The loss has the term with a minus: against its gradient the score rises."""
    term = TaskSemantics(OpenClipTeacher(str(folder)), 1e6, "cosine", text="{answer}")
    settings = {"optimizer": AdamW(1e-3), "schedule": Schedule("constant_with_warmup", 0.0)}
    module, batch, logged = prompted(tmp_path, term, **settings), of_three(random_batch()), Logged()
    [before] = measured(module.backbone, batch, module.shortcuts, [term]).sums
    small_trainer(logged, max_steps=1).fit(module, loader_of([batch]))
    [after] = measured(module.backbone, batch, module.shortcuts, [term]).sums
    assert float(after.detach()) > float(before.detach())
    value = logged.steps[0]["train/task_semantics"]
    assert value == pytest.approx(float(before.detach()) / 3, rel=1e-5)
    assert logged.steps[0]["train/task_semantics/share"] == pytest.approx(
        -1e6 * value / logged.steps[0]["train/loss"], rel=1e-5
    )


def test_a_step_in_parts_is_the_step_with_both_terms(tmp_path, folder):
    found = []
    for size in (8, 2):
        terms = [FeatureConsistency(0.3), TaskSemantics(OpenClipTeacher(str(folder)), 2.0, "cosine")]
        module = module_with(tmp_path, PixelPrompting(BORDER, init_std=0.2), regularisers=terms)
        gradients, logged = Gradients(), Logged()
        parts = parts_of(random_batch(8, seed=4), size)
        trainer = small_trainer(gradients, logged, max_steps=1, accumulate_grad_batches=len(parts))
        trainer.fit(module, loader_of(parts))
        found.append((gradients.steps[0][DELTA], logged.steps[0]))
    (whole, of_whole), (parts, of_parts) = found
    assert torch.allclose(whole, parts, rtol=1e-3, atol=1e-5)
    assert set(of_whole) >= {"train/feature_consistency", "train/task_semantics", "train/task_semantics/share"}
    assert of_parts == pytest.approx(of_whole, rel=1e-5)


def test_a_teacher_is_frozen_and_stays_out_of_what_is_saved(tmp_path, folder):
    term = TaskSemantics(OpenClipTeacher(str(folder)), 0.1)
    module = prompted(tmp_path, term)
    module.train()
    assert not any(each.training for each in term.teacher.modules())
    assert not any(each.requires_grad for each in term.parameters())
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert list(checkpoint["state_dict"]) == [DELTA]


def test_loading_a_teacher_draws_nothing(folder):
    before = torch.get_rng_state()
    OpenClipTeacher(str(folder)).build()
    assert torch.equal(before, torch.get_rng_state())


def shipped_base() -> OpenClipLlama:
    backbone = RowsTeacher(str(EMBEDDED / "testbed")).described
    backbone.load()
    return backbone


def test_rows_teacher_is_the_cosine_of_mean_row_and_mean_word(tmp_path):
    teacher, backbone = RowsTeacher(str(EMBEDDED / "testbed")), shipped_base()
    teacher.build()
    pixels = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    rows = backbone.connected_rows((pixels - 0.35) / 0.3).rows.view(2, 36, -1)
    mean_row = (rows / rows.norm(dim=-1, keepdim=True)).mean(dim=1)
    tokenizer, words = backbone.processor().tokenizer, ["red square", "dog"]
    table = backbone.token_embedding().weight
    means = torch.stack([table[tokenizer(each, add_special_tokens=False)["input_ids"]].mean(dim=0) for each in words])
    expected = cosine_similarity(mean_row[:, None], means[None], dim=-1)
    found = teacher.picture_features(pixels) @ teacher.text_features(words).T
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert teacher.knows(backbone)
    assert teacher.content() == backbone.fingerprint()


def test_a_teacher_knows_its_own_tower(tmp_path, folder, caplog):
    term = TaskSemantics(OpenClipTeacher(str(folder)), 0.1)
    module = prompted(tmp_path, term)
    assert not term.teacher.knows(module.backbone)
    tower = small_clip().visual
    module.backbone.vision_tower.conv1.weight = torch.nn.Parameter(tower.conv1.weight + 0.1)
    assert not term.teacher.knows(module.backbone)
    module.backbone.vision_tower.conv1.weight = tower.conv1.weight
    assert term.teacher.knows(module.backbone)
    term.build(module.backbone)
    assert "is the tower that the prompt is trained on" in caplog.text


def test_names_have_the_teachers_content_and_not_its_place(tmp_path, folder):
    def deciding(where: Path) -> dict[str, object]:
        return TaskSemantics(OpenClipTeacher(str(where)), 0.1).deciding()

    assert deciding(stored_clip(tmp_path / "elsewhere")) == deciding(folder)
    assert deciding(stored_clip(tmp_path / "other", small_clip(1.0))) != deciding(folder)
    otherwise = stored_clip(tmp_path / "otherwise")  # the same weights, and pictures that are read otherwise
    config = json.loads((otherwise / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (otherwise / "open_clip_config.json").write_text(json.dumps(config))
    assert deciding(otherwise) != deciding(folder)
    teacher = OpenClipTeacher(str(folder))
    changes = [{}, {"weight": 0.2}, {"factor": "cosine"}, {"text": "{answer}"}]
    assert len({json.dumps(TaskSemantics(teacher, **change).deciding()) for change in changes}) == 4


@pytest.mark.parametrize("text", ["", "a photo", "{answer} and {answer}", "{question}"])
def test_a_text_has_one_place_for_the_answer(folder, text):
    with pytest.raises(BadInputError, match="places for an answer"):
        TaskSemantics(OpenClipTeacher(str(folder)), text=text)


def test_teachers_that_do_not_fit_are_refused(tmp_path, folder):
    def refused(place: Path) -> str:
        with pytest.raises(BadInputError) as caught:
            OpenClipTeacher(str(place)).check_files()
        return f"{caught.value}"

    OpenClipTeacher(str(folder)).check_files()
    assert "no text tower" in refused(stored_clip(tmp_path / "half", text_tower=False))
    assert "no text tower" in refused_by_testbed()
    assert "open_clip_model.safetensors: the file is missing" in refused(tmp_path / "nowhere")
    (stored_clip(tmp_path / "half named") / "open_clip_config.json").unlink()
    assert "cannot be read" in refused(tmp_path / "half named")
    config = json.loads((folder / "open_clip_config.json").read_text())
    for number, (key, value, expected) in enumerate(
        [
            ("hf_model_name", "bert", "never done"),
            ("vocab_size", 100, "vocabulary"),
            ("embed_cls", True, "text tower"),
            ("heads", 0, "text_cfg.heads: 0 does not fit"),
            ("heads", 3, "text_cfg.width: 8 is no multiple of heads, 3"),
            ("width", "8", "text_cfg.width: '8' does not fit"),
            ("layers", 0, "text_cfg.layers: 0 does not fit"),
            ("context_length", 1.5, "text_cfg.context_length: 1.5 does not fit"),
        ]
    ):
        other = stored_clip(tmp_path / f"other{number}")
        text = {**config["model_cfg"]["text_cfg"], key: value}
        changed = {**config, "model_cfg": {**config["model_cfg"], "text_cfg": text}}
        (other / "open_clip_config.json").write_text(json.dumps(changed))
        assert expected in refused(other)
    with pytest.raises(BadInputError, match="no backbone's folder"):
        RowsTeacher(str(folder)).check_files()


def refused_by_testbed() -> str:
    """The embedded tower's file, beside a configuration whose text tower the file does not have."""
    vision = EMBEDDED / "testbed" / "vision"
    config = json.loads((vision / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["vocab_size"] != 49_408
    with pytest.raises(BadInputError) as caught:
        OpenClipTeacher(str(vision)).check_files()
    return str(caught.value)


def test_answers_that_a_teacher_cannot_read_whole_are_refused(folder):
    term = TaskSemantics(OpenClipTeacher(str(folder)), 0.1)
    term.check_answers(["red car", "dog", "one two three four"])
    with pytest.raises(BadInputError, match="has 13 tokens, of which open_clip would read 12"):
        term.check_answers(["one two three four five"])  # begin, six words around it, and end
    with pytest.raises(BadInputError, match="of which open_clip would read 12"):
        term.check_answers(["dog", "one two three four five six seven eight nine ten"])
    rows = TaskSemantics(RowsTeacher(str(EMBEDDED / "testbed")), 0.1, text="{answer}")
    rows.check_answers(["red square"])
    with pytest.raises(BadInputError, match="a word that this backbone does not know"):
        rows.check_answers(["red hovercraft"])


def test_pictures_without_answers_are_refused(tmp_path, folder):
    term = TaskSemantics(OpenClipTeacher(str(folder)), 0.1)
    module, [batch] = prompted(tmp_path, term), with_counts([random_batch()])
    with pytest.raises(BadInputError, match="do not say what their answers are"):
        measured(module.backbone, replace(batch, answers=[]), module.shortcuts, [term])


def test_what_a_teacher_holds_and_keeps_is_estimated(tmp_path, folder):
    for teacher, side in ((OpenClipTeacher(str(folder)), 24), (RowsTeacher(str(EMBEDDED / "testbed")), 48)):
        teacher.build()
        own = {each.untyped_storage().data_ptr() for each in teacher.parameters()}
        kept = {}

        def keep(tensor: torch.Tensor, kept=kept) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            teacher.picture_features(torch.rand(8, 3, side, side).requires_grad_())
        found = sum(storage.nbytes() for address, storage in kept.items() if address not in own)
        assert 0.7 < teacher.kept_bytes(8) / found < 1.6, teacher.kind
        held = sum(each.numel() * each.itemsize for each in teacher.parameters())
        assert 0.95 < teacher.held_bytes() / held < 1.05


def test_pictures_in_tiles_are_refused(tmp_path, folder):
    term = TaskSemantics(OpenClipTeacher(str(folder)), 0.1)
    module, batch = prompted(tmp_path, term), of_three(random_batch())
    with pytest.raises(BadInputError, match="in tiles"):
        measured(module.backbone, replace(batch, picture_counts=[1, 1, 0]), module.shortcuts, [term])

    class InTiles(Processor):
        layouts = None
        layouts_vary = True

    with pytest.raises(BadInputError, match="in tiles"):
        term.check_processor(InTiles.__new__(InTiles))
