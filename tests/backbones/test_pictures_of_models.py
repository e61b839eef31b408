"""From pictures to logits: batches of samples with none, one and two pictures against the library's own processor.

The library is given each sample alone, as its own processor prepares it; nothing on its side is of ours.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.utils.data import DataLoader

from data_modules.instruction import SampleDataset
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.answering.shared_prefill import prefill_pictures
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.inputs.batch import IMAGE_TOKEN_ID, Batch, Span
from lightning_m2pt.inputs.collate import Collator, encoded_sample, joined_pictures, with_layouts
from lightning_m2pt.inputs.picture_batch import PictureBatch, picture_batch
from lightning_m2pt.inputs.processing import EncodedText, Processor
from lightning_m2pt.inputs.samples import Sample, Turn
from tests.support.towers.float64_islands import float64_islands
from tests.support.whole_models import (
    IMAGE_TOKEN,
    idefics3_config,
    llava_config,
    next_config,
    onevision_config,
    qwen_config,
    write_whole_model,
)

CONFIGS: dict[str, Callable[[], dict[str, Any]]] = {
    "llava": llava_config,
    "onevision": onevision_config,
    "next": next_config,
    "idefics3": idefics3_config,
    "smolvlm": lambda: idefics3_config("smolvlm", "SmolVLM"),
    "qwen": qwen_config,
}
SIZES = [(40, 13), (16, 16), (9, 31), (21, 47)]
"""Width and height of four pictures."""
TEXTS = ["what <image> color ?", "red <image> it <image> is blue ?", "what is it ?", "<image> blue ."]
OF_SAMPLES = [[0], [1, 3], [], [2]]


def pictures() -> list[numpy.ndarray]:
    generator = numpy.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), dtype=numpy.uint8) for width, height in SIZES]


def encoded(processor: Processor, text: str) -> EncodedText:
    """Returns a text's tokens with a placeholder for every picture."""
    ids = numpy.array(processor.tokenizer(text)["input_ids"], numpy.int32)
    is_image = ids == processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    spans = numpy.where(is_image, Span.IMAGE, Span.QUESTION).astype(numpy.int8)
    return EncodedText(numpy.where(is_image, IMAGE_TOKEN_ID, ids).astype(numpy.int32), spans)


def samples() -> list[Sample]:
    made = pictures()
    return [
        Sample(
            id=str(number),
            image=made[shown[0]] if shown else None,
            image_id="",
            turns=(Turn(text),),
            tasks=("t",),
            source=f"record {number}",
            further_images=tuple(made[each] for each in shown[1:]),
        )
        for number, (text, shown) in enumerate(zip(TEXTS, OF_SAMPLES, strict=True))
    ]


def batch_of(processor: Processor, chosen: Sequence[Sample]) -> Batch:
    texts = [encoded(processor, sample.turns[0].question) for sample in chosen]
    parts = [encoded_sample(sample, text, processor, "") for sample, text in zip(chosen, texts, strict=True)]
    batch = Collator(3)(parts)
    assert isinstance(batch, Batch)
    return batch


def in_float64(batch: Any) -> Any:
    batch.pixel_values = batch.pixel_values.double()
    return batch


def library_inputs(folder: Path, name: str, sample: Sample) -> dict[str, torch.Tensor]:
    """Returns a sample as the library's own processor prepares it."""
    from transformers import (
        AutoImageProcessor,
        AutoTokenizer,
        Idefics3Processor,
        LlavaNextProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        LlavaProcessor,
        Qwen2_5_VLProcessor,
        Qwen2VLVideoProcessor,
    )

    images, tokenizer = (
        AutoImageProcessor.from_pretrained(folder, trust_remote_code=False),
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
    )
    if name == "llava":
        processor: Any = LlavaProcessor(images, tokenizer, 4, "default", num_additional_image_tokens=1)
    elif name == "qwen":
        tokenizer.image_token, tokenizer.video_token = IMAGE_TOKEN, "<video>"
        processor = Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor())
    elif name == "next":
        processor = LlavaNextProcessor(images, tokenizer, 4, "default", num_additional_image_tokens=1)
    elif name == "onevision":
        processor = LlavaOnevisionProcessor(
            images, tokenizer, LlavaOnevisionVideoProcessor(), 16, "full", vision_aspect_ratio="anyres_max_2"
        )
    else:
        processor = Idefics3Processor(images, tokenizer, image_seq_len=4)
    shown = {"images": [list(sample.images)]} if sample.images else {}
    # Qwen's conversations have the tokens around a picture in their text; ours come with the picture.
    around = f"<row_3_col_2>{IMAGE_TOKEN}<row_3_col_3>" if name == "qwen" else IMAGE_TOKEN
    text = sample.turns[0].question.replace(IMAGE_TOKEN, around)
    made = dict(processor(text=[text], return_tensors="pt", **shown))
    return {key: value.double() if value.is_floating_point() else value for key, value in made.items()}


def both(folder: Path, name: str) -> tuple[VisionLanguageModel, Any]:
    from transformers import AutoModelForImageTextToText

    write_whole_model(folder, CONFIGS[name]())
    backbone = VisionLanguageModel(str(folder), dtype="float64")
    backbone.load()
    library = AutoModelForImageTextToText.from_pretrained(str(folder), dtype=torch.float64, trust_remote_code=False)
    return backbone, library.eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_answers_are_the_librarys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    backbone, library = both(tmp_path, name)
    asked = samples()
    batch = in_float64(batch_of(backbone.processor(), asked))
    given = [library_inputs(tmp_path, name, sample) for sample in asked]
    with torch.no_grad(), float64_islands(monkeypatch, library):
        found = backbone.logits(backbone(batch).hidden_states)
        for sample, inputs in enumerate(given):
            expected = library(**inputs).logits[0]
            torch.testing.assert_close(found[sample, : len(expected)], expected, rtol=1e-12, atol=1e-12)
        assert found.shape[1] == max(inputs["input_ids"].shape[1] for inputs in given)
    answers = greedy_answers(backbone, batch, 4, end_token_id=-1)
    for answer, inputs in zip(answers, given, strict=True):
        wanted = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
        generated = library.generate(**inputs, **wanted, suppress_tokens=list(backbone.never_answered))
        assert answer.token_ids == generated[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_of_every_sample_are_known_from_sizes_alone(tmp_path: Path, name: str) -> None:
    write_whole_model(tmp_path, CONFIGS[name]())
    processor = VisionLanguageModel(str(tmp_path), dtype="float64").processor()
    for sample in samples():
        layouts = processor.layouts(sample.images)
        tokens = encoded(processor, sample.turns[0].question)
        rows = len(tokens) + sum(len(each.token_ids) - each.placeholders - 1 + sum(each.rows) for each in layouts)
        assert rows == library_inputs(tmp_path, name, sample)["input_ids"].shape[1]


def questions_of_pictures(processor: Processor) -> tuple[PictureBatch, Batch]:
    """Returns questions about three pictures side by side, and one by one."""
    made = pictures()[:3]
    asked = [["what is it ?", "what color ?", "red"], ["blue ?"], ["it ?", "is it red ?"]]
    prepared = [processor.pictures([each])[0] for each in made]
    texts = [
        [with_layouts(encoded(processor, f"A <image> {question}"), [picture]) for question in of_picture]
        for of_picture, picture in zip(asked, prepared, strict=True)
    ]
    pixels, sizes = joined_pictures(prepared, processor)
    names = [[[f"{number}/{question}"] for question in of_picture] for number, of_picture in enumerate(asked)]
    together = picture_batch(pixels, texts, names, sizes)
    alone = [
        Sample(f"{number}/{question}", made[number], "", (Turn(f"A <image> {question}"),), ("t",), "")
        for number, of_picture in enumerate(asked)
        for question in of_picture
    ]
    return in_float64(together), in_float64(batch_of(processor, alone))


@pytest.mark.parametrize("name", CONFIGS)
def test_questions_side_by_side_are_those_one_by_one(tmp_path: Path, name: str) -> None:
    backbone, _ = both(tmp_path, name)
    together, alone = questions_of_pictures(backbone.processor())
    assert together.sample_ids == alone.sample_ids
    with torch.no_grad():
        state, reference = prefill_pictures(backbone, together), backbone.prefill(alone)
    torch.testing.assert_close(state.logits, reference.logits, rtol=0, atol=1e-7)
    answers = [
        [answer.token_ids for answer in greedy_answers(backbone, batch, 4, end_token_id=-1)]
        for batch in (together, alone)
    ]
    assert together.of_every_name(answers[0]) == answers[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onevision", "idefics3"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_make_the_same_pictures(tmp_path: Path, name: str, start: str) -> None:
    write_whole_model(tmp_path, CONFIGS[name]())
    processor, asked = VisionLanguageModel(str(tmp_path), dtype="float64").processor(), samples()
    texts = [encoded(processor, sample.turns[0].question) for sample in asked]
    loader = DataLoader(
        SampleDataset(asked, texts, processor), 4, collate_fn=Collator(3), num_workers=1, multiprocessing_context=start
    )
    (found,) = loader
    expected = batch_of(processor, asked)
    for key in ("pixel_values", "input_ids", "spans", "picture_sizes"):
        assert torch.equal(getattr(found, key), getattr(expected, key))
