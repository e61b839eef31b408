"""Conversations with pictures in a whole model's own template, token by token as the library's processor has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest

from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL, IMAGE_TOKEN_ID
from lightning_m2pt.inputs.collate import encoded_sample
from lightning_m2pt.inputs.named_templates import NATIVE, template_named
from lightning_m2pt.inputs.samples import Sample, Turn
from tests.support.whole_models import (
    CHAT,
    idefics3_config,
    llava_config,
    onevision_config,
    qwen_config,
    write_whole_model,
)

CONFIGS: dict[str, Any] = {
    "llava": llava_config,
    "onevision": onevision_config,
    "idefics3": idefics3_config,
    "qwen": qwen_config,
}
SIZES = [(40, 13), (16, 16), (9, 31), (21, 47)]
"""Width and height of four pictures."""
OF_SAMPLES: tuple[Sequence[int], ...] = ([0], [1, 3], [])


def library_ids(folder: Path, name: str, sample: Sample, goes_on: bool) -> list[int]:
    """Returns a conversation's tokens as the library's processor and the model's template make them."""
    from transformers import (
        AutoImageProcessor,
        AutoTokenizer,
        Idefics3Processor,
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
    own = {"chat_template": tokenizer.chat_template}
    if name == "llava":
        processor: Any = LlavaProcessor(images, tokenizer, 4, "default", num_additional_image_tokens=1, **own)
    elif name == "qwen":
        tokenizer.image_token, tokenizer.video_token = "<image>", "<video>"
        processor = Qwen2_5_VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), **own)
    elif name == "onevision":
        settings = {"vision_aspect_ratio": "anyres_max_2", **own}
        processor = LlavaOnevisionProcessor(images, tokenizer, LlavaOnevisionVideoProcessor(), 16, "full", **settings)
    else:
        processor = Idefics3Processor(images, tokenizer, image_seq_len=4, **own)
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(sample.turns):
        shown = [] if number else [{"type": "image", "image": image} for image in sample.images]
        messages.append({"role": "user", "content": [*shown, {"type": "text", "text": turn.question}]})
        if turn.answer:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    made = processor.apply_chat_template(messages, tokenize=True, add_generation_prompt=goes_on, return_dict=True)
    ids: list[int] = numpy.array(made["input_ids"]).reshape(-1).tolist()
    return ids


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_are_the_library_s(tmp_path: Path, name: str) -> None:
    write_whole_model(tmp_path, CONFIGS[name]())
    if name == "qwen":  # its template writes what a layout has around a picture
        around = CHAT.replace("<image>\n", "<row_3_col_2><image><row_3_col_3>")
        (tmp_path / "chat_template.jinja").write_text(around)
    processor = VisionLanguageModel(str(tmp_path)).processor()
    image_token = processor.tokenizer.convert_tokens_to_ids("<image>")
    made = [numpy.zeros((height, width, 3), numpy.uint8) for width, height in SIZES]
    for shown in OF_SAMPLES:
        for last in ("it is blue", ""):
            turns = (Turn("what color ?", "red"), Turn("is it a ?", last))
            images = [made[number] for number in shown]
            first = images[0] if images else None
            sample = Sample("one", first, "", turns, ("", ""), "", further_images=tuple(images[1:]))
            text = processor.encode(sample, NATIVE, with_answers=bool(last))
            found = encoded_sample(sample, text, processor, "").text
            rows = iter([rows for picture in processor.pictures(images) for rows in picture.layout.rows or (16,)])
            repeats = [next(rows) if token == IMAGE_TOKEN_ID else 1 for token in found.input_ids.tolist()]
            ids = numpy.where(found.input_ids == IMAGE_TOKEN_ID, image_token, found.input_ids).repeat(repeats)
            assert ids.tolist() == library_ids(tmp_path, name, sample, goes_on=not last), (shown, last)
            labels = [int(label) for label in found.labels if label != IGNORED_LABEL]
            supervised = ["red", "</s>", *([*last.split(), "</s>"] if last else [])]
            assert processor.tokenizer.convert_ids_to_tokens(labels) == supervised


@pytest.mark.parametrize("template", ["plain", "vicuna_v1", "native"])
@pytest.mark.parametrize("name", ["onevision", "qwen"])
def test_a_text_that_holds_the_model_s_token_of_a_video_is_refused(tmp_path: Path, name: str, template: str) -> None:
    write_whole_model(tmp_path, CONFIGS[name]())
    backbone = VisionLanguageModel(str(tmp_path))
    processor = backbone.processor()
    token = processor.tokenizer.convert_ids_to_tokens(backbone.never_answered[1])
    sample = Sample("s", None, "", (Turn(f"what is {token}?", "a"),), ("t",), "file:1")
    with pytest.raises(BadInputError, match=token):
        processor.encode(sample, template_named(template))


@pytest.mark.parametrize("around", [("<row_3_col_1>", "<row_3_col_3>"), ("<row_3_col_1>", "<row_3_col_2>")])
def test_a_template_with_other_tokens_around_a_picture_than_the_model_s_is_refused(
    tmp_path: Path, around: tuple[str, str]
) -> None:
    """Each picture would have both: the template's, and those of its layout."""
    write_whole_model(tmp_path, CONFIGS["qwen"]())
    (tmp_path / "chat_template.jinja").write_text(CHAT.replace("<image>\n", "<image>".join(around)))
    processor = VisionLanguageModel(str(tmp_path)).processor()
    sample = Sample("s", None, "", (Turn("what is it ?", "a"),), ("t",), "file:1")
    with pytest.raises(BadInputError, match=r"it writes .* configuration says <row_3_col_2><image><row_3_col_3>"):
        processor.encode(sample, NATIVE)
