"""What a loaded model answers is what ``m2pt evaluate`` writes, string by string, and every picture is read once."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

import lightning_m2pt
from data_modules.vsr import VSR
from lightning_m2pt.application.asked import picture_source
from lightning_m2pt.application.model import Model
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.main import main
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from tests.support.answers.saved_adapters import asked_of, save_invented, write_pictures
from tests.support.whole_models import llava_config, write_whole_model

TOKENS, BATCH = 5, 4
YES_NO = ["yes", "no"]
METHODS = {
    "m2pt": lambda: M2PT(visual_length=3, textual_length=2),
    "raw rows": lambda: M2PT(visual_length=3, textual_length=2, textual_depth="shallow"),
    "lora": lambda: Lora(rank=2),
    "prefix": lambda: PrefixTuning(reparameterisation=None),
    "pixels": lambda: PixelPrompting(border=0.1),
    "full": Full,
    "norms": LayerNormTuning,
    "combined": lambda: Combined([PixelPrompting(border=0.1), M2PT(visual_length=2, textual_length=2)]),
}


class Evaluation:
    """An adapter that ``m2pt evaluate`` has asked an invented set with.

    Attributes:
        folder: Where everything lies.
        adapter: The adapter's folder.
        base: Arguments of ``load`` that say where the base is.
    """

    def __init__(self, folder: Path, method: Method, whole_model: Path | None = None) -> None:
        self.folder, self.adapter = folder, folder / "adapter"
        VSR.write_fake(folder / "vsr")
        backbone = None if whole_model is None else VisionLanguageModel(str(whole_model), dtype="float32")
        save_invented(self.adapter, method, asked_of(write_pictures(folder / "pictures"))[:1], backbone)
        self.base: dict[str, Any] = {"base": "testbed" if whole_model is None else str(whole_model), "device": "cpu"}
        self.config = ["--config", "experiments/frozen.yaml"]
        if whole_model is not None:
            init = {"model": str(whole_model), "dtype": "float32"}
            backbone_path = f"{VisionLanguageModel.__module__}.{VisionLanguageModel.__name__}"
            section = {"backbone": {"class_path": backbone_path, "init_args": init}}
            (folder / "model.yaml").write_text(json.dumps({"model": section}))
            self.config += ["--config", str(folder / "model.yaml")]

    def lines(self, *words: str, tuned: bool = True, batch_size: int = BATCH) -> list[dict[str, Any]]:
        """Evaluates and returns the lines of the prediction file."""
        settings = {"root": str(self.folder / "vsr"), "template": "vicuna_v1", "max_new_tokens": TOKENS}
        init = {**settings, "batch_size": batch_size}
        sets = json.dumps([{"class_path": "data_modules.vsr.VSR", "init_args": init}])
        out = self.folder / f"out-{tuned}-{len(words)}-{batch_size}"
        of_adapter = ["--adapter", str(self.adapter), "--output", str(out)] if tuned else ["--output_root", str(out)]
        command = ["evaluate", *self.config, "--benchmarks", sets, *of_adapter, *words]
        assert main([*command, "--trainer.accelerator", "cpu"]) == 0
        (file,) = out.rglob("predictions/vsr.jsonl")
        return [json.loads(line) for line in file.read_text().splitlines()[1:]]

    def asked(self, lines: Sequence[dict[str, Any]]) -> list[tuple[Path, str]]:
        """Returns what was asked."""
        return [(self.folder / "vsr" / "images" / line["image_id"], line["question"]) for line in lines]


def check_equal(evaluation: Evaluation) -> None:
    """Compares greedy answers, likelihoods and the untouched model's answers with the prediction files'."""
    model = lightning_m2pt.load(evaluation.adapter, **evaluation.base)
    lines = evaluation.lines()
    asked, expected = evaluation.asked(lines), [line["answer"] for line in lines]
    assert model.ask_all(asked, max_new_tokens=TOKENS, batch_size=BATCH) == expected
    assert [model.ask(*one, max_new_tokens=TOKENS) for one in asked] == expected
    scored = evaluation.lines("--answer", "likelihood_sum", batch_size=1)
    for (picture, text), line in zip(asked, scored, strict=True):
        found = model.score(picture, text, list(line["log_probabilities"]))
        assert {candidate: round(value, 6) for candidate, value in found.items()} == line["log_probabilities"]
    untouched, answers = model.frozen(), [line["answer"] for line in evaluation.lines(tuned=False)]
    assert untouched.ask_all(asked, max_new_tokens=TOKENS, batch_size=BATCH) == answers
    assert untouched.score(*asked[0], YES_NO) != model.score(*asked[0], YES_NO)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return Evaluation(tmp_path_factory.mktemp("evaluation"), METHODS["m2pt"]())


@pytest.fixture(scope="module")
def model(evaluation: Evaluation) -> Model:
    return lightning_m2pt.load(evaluation.adapter, **evaluation.base)


def test_answers_are_those_of_an_evaluation(evaluation: Evaluation) -> None:
    check_equal(evaluation)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["embedded", "whole"])
@pytest.mark.parametrize("name", METHODS)
def test_answers_of_every_method_are_those_of_an_evaluation(tmp_path: Path, name: str, base: str) -> None:
    if base == "whole":
        write_whole_model(tmp_path / "model", llava_config(max_position_embeddings=1024))
    check_equal(Evaluation(tmp_path, METHODS[name](), tmp_path / "model" if base == "whole" else None))


class Counts:
    """How many pictures a model's tower has read and how many rows its decoder has run."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pictures = self.rows = 0
        backbone = model._base.backbone
        visual_rows, append_rows = backbone.visual_rows, backbone.append_rows

        def read(pixel_values: torch.Tensor) -> Any:
            self.pictures += len(pixel_values)
            return visual_rows(pixel_values)

        def run(past: Any, embeddings: torch.Tensor, *others: Any, **named: Any) -> Any:
            self.rows += embeddings.shape[0] * embeddings.shape[1]
            return append_rows(past, embeddings, *others, **named)

        monkeypatch.setattr(backbone, "visual_rows", read)
        monkeypatch.setattr(backbone, "append_rows", run)


def shown_alike(evaluation: Evaluation) -> dict[str, list[Any]]:
    """Returns one picture several times, in forms that are the same."""
    path = evaluation.folder / "vsr" / "images" / "fake_0.png"
    array = numpy.asarray(Image.open(path).convert("RGB"))
    opened = Image.open(path)
    return {
        "path": [path, str(path), path.parent / ".." / "images" / path.name],
        "object": [array] * 3,
        "content": [array, array.copy(), Image.fromarray(array)],
        "opened": [opened, opened, Image.open(path)],
    }


@pytest.mark.parametrize("form", ["path", "object", "content", "opened"])
def test_a_picture_is_read_once_for_all_its_questions(
    evaluation: Evaluation, model: Model, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    texts = ["What is this?", "Is there a red square in it?", "Which number stands at its left?"]
    shown = shown_alike(evaluation)[form]
    alone = [model.ask(shown[0], text, max_new_tokens=TOKENS) for text in texts]
    counts = Counts(model, monkeypatch)
    model.ask_all([(shown[0], texts[0])], max_new_tokens=1)
    one = counts.rows
    assert counts.pictures == 1
    together = model.ask_all(list(zip(shown, texts, strict=True)), max_new_tokens=1)
    assert counts.pictures == 2
    assert counts.rows - one < one + 60  # the two other questions' own words, and not the picture's rows again
    assert together == [model.ask(shown[0], text, max_new_tokens=1) for text in texts]
    assert model.ask_all(list(zip(shown, texts, strict=True)), max_new_tokens=TOKENS) == alone


def test_pictures_of_the_same_bytes_and_another_shape_are_two(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    wide, high = numpy.zeros((20, 30, 3), numpy.uint8), numpy.zeros((30, 20, 3), numpy.uint8)
    counts = Counts(model, monkeypatch)
    model.ask_all([(wide, "What is this?"), (high, "What is this?"), (wide, "Is it red?")], max_new_tokens=1)
    assert counts.pictures == 2


def test_the_same_object_is_looked_at_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """An opened picture is decoded, and an array hashed, once for all its questions."""
    looked: list[object] = []

    def looking(image: object, where: str) -> Any:
        looked.append(image)
        return picture_source(image, where)

    monkeypatch.setattr("lightning_m2pt.application.asked.picture_source", looking)
    grey = numpy.zeros((20, 30, 3), numpy.uint8)
    model.ask_all([(grey, "What is this?"), (grey, "Is it red?"), (grey.copy(), "Is it blue?")], max_new_tokens=1)
    assert len(looked) == 2


def test_every_form_of_a_picture_gives_the_same_answer(evaluation: Evaluation, model: Model) -> None:
    shown = [each for forms in shown_alike(evaluation).values() for each in forms]
    answers = {model.ask(each, "What is this?", max_new_tokens=TOKENS) for each in shown}
    assert len(answers) == 1


def test_opened_pictures_are_read_as_their_files_are(model: Model, tmp_path: Path) -> None:
    """Turned by EXIF, 16-bit grey, palette, transparency: the rules of files hold for Pillow's pictures too."""
    drawn = numpy.random.default_rng(3).integers(0, 256, (40, 25, 4), numpy.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(drawn[..., :3]).save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(drawn).save(tmp_path / "transparent.png")
    Image.fromarray(drawn[..., :3]).quantize(9).save(tmp_path / "palette.png")
    Image.fromarray(drawn[..., 0].astype(numpy.uint16) * 257).save(tmp_path / "grey16.png")
    Image.fromarray(drawn[..., 0]).save(tmp_path / "grey.png")
    for path in sorted(tmp_path.iterdir()):
        scores = [model.score(shown, "Is it red?", YES_NO) for shown in (path, Image.open(path))]
        assert scores[0] == scores[1], path.name
    assert model.score(drawn[..., 0], "Is it red?", YES_NO) == model.score(tmp_path / "grey.png", "Is it red?", YES_NO)


def test_order_and_batch_size_change_nothing(evaluation: Evaluation) -> None:
    exact = lightning_m2pt.load(evaluation.adapter, dtype="float64", **evaluation.base)
    asked = asked_of(write_pictures(evaluation.folder / "pictures"))
    alone = [exact.ask(*one, max_new_tokens=TOKENS) for one in asked]
    assert len(set(alone)) > 1
    for size in (2, 4, 100):
        assert exact.ask_all(asked, max_new_tokens=TOKENS, batch_size=size) == alone
        assert exact.ask_all(asked[::-1], max_new_tokens=TOKENS, batch_size=size) == alone[::-1]
    assert exact.ask_all([asked[0], asked[1], asked[0]], max_new_tokens=TOKENS) == [alone[0], alone[1], alone[0]]
    assert exact.ask_all([]) == []


def test_scores_are_in_the_order_of_the_candidates(evaluation: Evaluation, model: Model) -> None:
    ((picture, text), *_) = asked_of(write_pictures(evaluation.folder / "pictures"))
    found = model.score(picture, text, ["no", "a red square", "yes"])
    assert list(found) == ["no", "a red square", "yes"]
    assert all(value < 0 for value in found.values())
    again = model.score(picture, text, ("yes", "no"))
    assert again["yes"] == pytest.approx(found["yes"], abs=1e-4)
