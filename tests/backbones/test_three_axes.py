"""Qwen2.5-VL: positions on three axes give the library's logits and answers, on every path."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.answering.shared_prefill import prefill_pictures
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.collate import padded
from lightning_m2pt.inputs.picture_batch import picture_batch
from lightning_m2pt.inputs.processing import EncodedText
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared
from lightning_m2pt.prompts.rotary_axes import behind, coded, on_three_axes, positions_of_rows
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.self_test import refuse_unless_like_library
from tests.support.towers.float64_islands import float64_islands
from tests.support.whole_models import qwen_config, write_whole_model

IMAGE_TOKEN = 59
GRIDS = [(1, 6, 4), (1, 2, 10), (1, 8, 8)]
"""Lines and columns of patches of three pictures; two by two they become rows."""
OF_SAMPLES = [[0], [1, 2], [], [2]]
PATCH = 3 * 2 * 4 * 4


def both(folder: Path, merged: int = 2) -> tuple[VisionLanguageModel, Any]:
    from transformers import AutoModelForImageTextToText

    config = qwen_config()
    config["vision_config"]["spatial_merge_size"] = merged
    write_whole_model(folder, config)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "merge_size": merged}))
    backbone = VisionLanguageModel(str(folder), dtype="float64")
    backbone.load()
    library = AutoModelForImageTextToText.from_pretrained(str(folder), dtype=torch.float64, trust_remote_code=False)
    return backbone, library.eval()


def pictures() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(lines * columns, PATCH, generator=generator).double() for _, lines, columns in GRIDS]


def batch_and_samples(answer: int = 0, merged: int = 2) -> tuple[Batch, list[dict[str, torch.Tensor]]]:
    """Returns a batch of ours, and each of its samples as the library reads it."""
    generator, made = torch.Generator().manual_seed(0), pictures()
    ids, spans, samples = [], [], []
    for sample, shown in enumerate(OF_SAMPLES):
        ours = torch.randint(4, 55, (3 + sample,), generator=generator).tolist()
        theirs = list(ours)
        for each in shown:
            behind = torch.randint(4, 55, (2,), generator=generator).tolist()
            ours += [IMAGE_TOKEN_ID, *behind]
            theirs += [IMAGE_TOKEN] * (len(made[each]) // merged**2) + behind
        ids.append(numpy.array(ours))
        spans.append(numpy.where(ids[-1] < 0, int(Span.IMAGE), int(Span.QUESTION)))
        spans[-1][len(ours) - answer :] = Span.ANSWER
        given = {"input_ids": torch.tensor([theirs]), "attention_mask": torch.ones(1, len(theirs), dtype=torch.long)}
        given["mm_token_type_ids"] = (given["input_ids"] == IMAGE_TOKEN).int()
        if shown:
            given["pixel_values"] = torch.cat([made[each] for each in shown])
            given["image_grid_thw"] = torch.tensor([GRIDS[each] for each in shown])
        samples.append(given)
    order = [each for shown in OF_SAMPLES for each in shown]
    labels = [numpy.where(kinds == Span.ANSWER, own, IGNORED_LABEL) for own, kinds in zip(ids, spans, strict=True)]
    batch = Batch(
        pixel_values=torch.cat([made[each] for each in order]),
        input_ids=padded(ids, 3),
        labels=padded(labels, IGNORED_LABEL),
        spans=padded(spans, Span.PADDING),
        sample_ids=["a", "b", "c", "d"],
        tasks=[("t",)] * 4,
        picture_sizes=torch.tensor([GRIDS[each] for each in order]),
    )
    return batch, samples


def test_logits_positions_and_answers_are_the_librarys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, library = both(tmp_path)
    batch, samples = batch_and_samples()
    assert backbone.never_answered == (IMAGE_TOKEN, 58)
    with torch.no_grad(), float64_islands(monkeypatch, library):
        found = backbone.logits(backbone(batch).hidden_states)
        for sample, given in enumerate(samples):
            expected = library(**given).logits[0]
            torch.testing.assert_close(found[sample, : len(expected)], expected, rtol=1e-12, atol=1e-12)
    for answer, given in zip(greedy_answers(backbone, batch, 6, end_token_id=-1), samples, strict=True):
        generated = library.generate(
            **given, max_new_tokens=6, do_sample=False, eos_token_id=None, suppress_tokens=[IMAGE_TOKEN, 58]
        )
        assert answer.token_ids == generated[0, given["input_ids"].shape[1] :].tolist()


def test_rows_of_another_number_of_patches_have_the_librarys_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, library = both(tmp_path, merged=1)
    batch, samples = batch_and_samples(merged=1)
    counts = [lines * columns for _, lines, columns in batch.picture_sizes.tolist()]
    assert backbone.rows_of_runs(batch.pixel_values, batch.picture_sizes) == counts
    with torch.no_grad(), float64_islands(monkeypatch, library):
        found = backbone.logits(backbone(batch).hidden_states)
        for sample, given in enumerate(samples):
            expected = library(**given).logits[0]
            torch.testing.assert_close(found[sample, : len(expected)], expected, rtol=1e-12, atol=1e-12)


def test_paths_have_one_loss_and_one_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (backbone, library), found = both(tmp_path), []
    batch, _ = batch_and_samples(answer=2)
    with float64_islands(monkeypatch, library):
        for path, shortcuts in (("token", EVERY_ROW), ("prefix", EVERY_ROW), ("prefix", Shortcuts())):
            method = M2PT(0, 4, init="normal", init_std=0.5, path=path)
            method.build(backbone, torch.Generator().manual_seed(7))
            method.double().attach(backbone)
            losses = supervised_rows(backbone, batch, shortcuts).losses
            losses.sum().backward()
            gradients = {each: tensor.grad for each, tensor in method.named_parameters()}
            found.append({"losses": losses.detach(), **gradients})
            method.detach(backbone)
    for other in found[1:]:
        for each, numbers in found[0].items():
            scale = max(float(numbers.abs().max()), 1e-3)
            torch.testing.assert_close(other[each], numbers, rtol=0, atol=1e-11 * scale, msg=each)


def test_prompts_in_front_move_all_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's decoder is given rows in front, and its own positions moved on by their number."""
    backbone, library = both(tmp_path)
    batch, samples = batch_and_samples()
    method = M2PT(0, 3, interaction=False, textual_depth="shallow", init="normal", init_std=0.5)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    prompt = method.textual_prompts.rows["0"]
    with torch.no_grad(), float64_islands(monkeypatch, library):
        found = backbone.logits(backbone(batch).hidden_states)
        for sample, given in enumerate(samples):
            embeddings = library.get_input_embeddings()(given["input_ids"])
            positions = torch.arange(embeddings.shape[1]).expand(3, 1, -1)
            if "pixel_values" in given:
                features = library.get_image_features(given["pixel_values"], given["image_grid_thw"]).pooler_output
                mask = (given["input_ids"] == IMAGE_TOKEN)[..., None]
                embeddings = embeddings.masked_scatter(mask, torch.cat(list(features)))
                chosen = {key: given[key] for key in ("input_ids", "mm_token_type_ids", "image_grid_thw")}
                positions, _ = library.model.get_rope_index(**chosen, attention_mask=given["attention_mask"])
            in_front = torch.arange(3).expand(3, 1, -1)
            states = library.model.language_model(
                inputs_embeds=torch.cat([prompt, embeddings], dim=1),
                position_ids=torch.cat([in_front, positions + 3], dim=2),
                use_cache=False,
            ).last_hidden_state
            expected = library.lm_head(states[0, 3:])
            torch.testing.assert_close(found[sample, : len(expected)], expected, rtol=1e-12, atol=1e-12)


def test_questions_behind_one_picture_are_answered_as_each_by_itself(tmp_path: Path) -> None:
    backbone, _ = both(tmp_path)
    method = M2PT(0, 4, init="normal", init_std=0.5)
    method.build(backbone, torch.Generator().manual_seed(7))
    method.double().attach(backbone)
    made = pictures()
    texts = [
        [[7, 8, IMAGE_TOKEN_ID, 9, 10, 11], [7, 8, IMAGE_TOKEN_ID, 9, 12]],
        [[7, 8, IMAGE_TOKEN_ID, 13, 14, 15, 16]],
    ]
    encoded = [[EncodedText(numpy.array(ids), numpy.zeros(len(ids), numpy.int8)) for ids in each] for each in texts]
    shared = picture_batch(torch.cat(made[:2]), encoded, [[["a"], ["b"]], [["c"]]])
    shared = replace(shared, picture_sizes=torch.tensor(GRIDS[:2]))
    asked = [(number, ids) for number, each in enumerate(texts) for ids in each]
    together = greedy_answers(backbone, shared, 5, end_token_id=-1)
    with torch.no_grad():
        state = prefill_pictures(backbone, shared)
    for question, (picture, ids) in enumerate(asked):
        tokens = torch.tensor([ids])
        spans = torch.where(tokens < 0, int(Span.IMAGE), int(Span.QUESTION))
        alone = Batch(made[picture], tokens, torch.full_like(tokens, IGNORED_LABEL), spans, ["s"], [("t",)])
        alone = replace(alone, picture_sizes=torch.tensor([GRIDS[picture]]))
        with torch.no_grad():
            by_itself = backbone.prefill(alone)
        torch.testing.assert_close(state.logits[question], by_itself.logits[0], rtol=1e-6, atol=1e-6)
        assert int(state.next_position[question]) == int(by_itself.next_position[0])
        assert greedy_answers(backbone, alone, 5, end_token_id=-1)[0].token_ids == together[question].token_ids


def test_a_trained_connector_stands_in_for_the_merger(tmp_path: Path) -> None:
    backbone, _ = both(tmp_path)
    batch, _ = batch_and_samples(answer=2)
    frozen = backbone.logits(backbone(batch).hidden_states)
    method = M2PT(0, 0)
    method.build(backbone, torch.Generator())
    method.double().attach(backbone)
    torch.testing.assert_close(backbone.logits(backbone(batch).hidden_states), frozen, rtol=1e-10, atol=1e-12)
    supervised_rows(backbone, batch).losses.sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in method.parameters())
    with torch.no_grad():
        next(method.parameters()).mul_(2)
    assert not torch.allclose(backbone.logits(backbone(batch).hidden_states), frozen)
    method.detach(backbone)
    assert torch.equal(backbone.logits(backbone(batch).hidden_states), frozen)
    assert "forward" not in vars(backbone.projector)


def test_it_passes_the_self_test_and_refuses_visual_prompts(tmp_path: Path) -> None:
    backbone, _ = both(tmp_path)
    for use in ("training", "answering"):
        refuse_unless_like_library(backbone, use, Shortcuts())
    with pytest.raises(BadInputError, match="see windows of patches alone"):
        M2PT(3, 2).check(backbone.shape)
    M2PT(0, 2).check(backbone.shape)
    batch, _ = batch_and_samples()
    assert backbone.rows_of_runs(batch.pixel_values, batch.picture_sizes) == [6, 5, 16, 16]


def test_positions_by_value() -> None:
    advances = torch.tensor([[1, 1, 0, 0, 0, 3, 1, 1]])
    within = coded(torch.tensor([0, 0, 0, 0, 1, 1, 0, 0]), torch.tensor([0, 0, 1, 2, 1, 2, 0, 0]))
    positions = positions_of_rows(advances, torch.zeros_like(advances))
    assert positions.tolist() == [[0, 1, 2, 2, 2, 2, 5, 6]]
    axes = on_three_axes((positions + within + 4).expand(3, 1, -1))
    assert axes[:, 0].tolist() == [
        [4, 5, 6, 6, 6, 6, 9, 10],
        [4, 5, 6, 6, 7, 7, 9, 10],
        [4, 5, 7, 8, 7, 8, 9, 10],
    ]
    assert behind(positions + within).tolist()[0][-3:] == [5, 6, 7]
    tall = coded(torch.tensor([0, 1, 2]), torch.tensor([0, 0, 0]))  # a picture of three lines and one column
    assert behind(tall + 4)[-1] == behind(coded(tall * 0, torch.tensor([0, 1, 2])) + 4)[-1] == 7


def test_the_published_form_is_read(tmp_path: Path) -> None:
    """Keys of the language model at the top, sections under their first name, other names of tensors."""
    nested = qwen_config()
    model = write_whole_model(tmp_path, nested)
    text = nested.pop("text_config")
    rotation = text.pop("rope_parameters")
    flat = {**text, "rope_theta": rotation["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}}
    tower = {key: value for key, value in nested["vision_config"].items() if key != "model_type"}
    published = {**flat, **nested, "vision_config": tower}
    (tmp_path / "config.json").write_text(json.dumps(published))
    first = {
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): tensor.contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(first, tmp_path / "model.safetensors", metadata={"format": "pt"})
    backbone = VisionLanguageModel(str(tmp_path), dtype="float32")
    backbone.load()
    found = backbone.language_model.state_dict()
    assert set(found) == set(model.state_dict())
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("part", "keys", "words"),
    [
        ("text_config", {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 1]}}, "mrope_section"),
        ("text_config", {"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window"),
        ("vision_config", {"out_hidden_size": 40}, "out_hidden_size"),
        ("vision_config", {"depth": 10**12}, "depth"),
        ("vision_config", {"window_size": 0}, "vision_config.window_size"),
        ("vision_config", {"window_size": 7}, "vision_config.window_size"),
        ("vision_config", {"is_causal": True}, "vision_config.is_causal"),
        ("vision_config", {"num_heads": 4}, "vision_config: a head's width"),
    ],
)
def test_what_is_not_proven_is_refused_by_its_key(tmp_path: Path, part: str, keys: dict[str, Any], words: str) -> None:
    config = qwen_config()
    config[part] |= keys
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInputError) as caught:
        VisionLanguageModel(str(tmp_path))
    assert words in caught.value.where


@pytest.mark.parametrize("key", ["vision_start_token_id", "vision_end_token_id"])
def test_tokens_around_pictures_are_tokens_of_the_model(tmp_path: Path, key: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**qwen_config(), key: 60}))
    with pytest.raises(BadInputError, match="60 is no token of the language model") as caught:
        VisionLanguageModel(str(tmp_path))
    assert key in caught.value.where


METHODS = {
    "low rank": lambda: Lora(2, vision=True),
    "everything": Full,
    "norms": lambda: LayerNormTuning(vision=True),
    "adapters": lambda: Adapter(4),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_methods_train_and_leave_nothing(tmp_path: Path, name: str, dtype: str) -> None:
    write_whole_model(tmp_path, qwen_config())
    backbone = VisionLanguageModel(str(tmp_path), dtype=dtype)
    backbone.load()
    batch, _ = batch_and_samples(answer=2)
    frozen = backbone.logits(backbone(batch).hidden_states)
    built = METHODS[name]()
    built.check(backbone.shape)
    built.build(backbone, torch.Generator().manual_seed(3))
    freeze_all_but_declared(TuningModule(backbone, built), built)
    built.attach(backbone)
    losses = supervised_rows(backbone, batch, Shortcuts()).losses
    torch.testing.assert_close(losses, supervised_rows(backbone, batch, EVERY_ROW).losses, rtol=1e-1, atol=1e-2)
    losses.sum().backward()
    assert all(tensor.grad is not None for tensor in built.named_tensors().values())
    greedy_answers(backbone, batch, 3, end_token_id=-1)
    built.detach(backbone)
    assert torch.equal(backbone.logits(backbone(batch).hidden_states), frozen)
