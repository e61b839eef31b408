"""The real pair two ways: as the project reads it, and as transformers' own models, put together here by hand.

What is put together by hand shares no code with the project but transformers: pixels come from the library's image
processor, text from the tokenizer's own chat template, and the picture's rows stand where its mark stood. The
projector between both is drawn at random: what is compared does not depend on what it was trained for, and a test
needs no other file than what ``m2pt models fetch smollm2_dinov2`` writes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import linear

from data_modules.vision_flan import VisionFlanRecord
from experiments.testbed.tuning_set import TRAINING_PART, tuning_records
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.inputs.collate import Collator, encoded_sample
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.inputs.samples import Sample, Turn

IMAGE_SIZE = 112
FEATURE_LAYER = -2
IMAGE_MARK = "<image>"


def pair_folder() -> Path:
    """Returns the folder of the pair.

    Raises:
        BadInputError: If it is not there.
    """
    folder = (Path(os.environ.get("M2PT_MODELS") or "models") / "smollm2_dinov2").absolute()
    for part in ("vision", "language"):
        if not (folder / part / "model.safetensors").is_file():
            raise BadInputError(
                "the real pair is not there",
                where=str(folder / part),
                expected="SmolLM2-135M-Instruct and DINOv2-small, as fetched; M2PT_MODELS says where models are",
                hint="m2pt models fetch smollm2_dinov2",
            )
    return folder


def write_projector(folder: Path) -> Path:
    """Writes a projector of random numbers, small enough that the rows of a picture are of the size of words'."""
    generator = torch.Generator().manual_seed(0)
    path = folder / "projector.safetensors"
    weight = torch.randn(576, 384, generator=generator) * 0.01
    save_file({"weight": weight, "bias": torch.randn(576, generator=generator) * 0.02}, path)
    return path


def pair(projector: Path, dtype: Any = "float32", **arguments: Any) -> TowerAndDecoder:
    """Returns the pair as the project reads it, not loaded."""
    folder = pair_folder()
    return TowerAndDecoder(
        str(folder / "vision"),
        str(folder / "language"),
        str(projector),
        feature_layer=FEATURE_LAYER,
        image_size=IMAGE_SIZE,
        dtype=dtype,
        **arguments,
    )


def loaded_pair(projector: Path, dtype: Any = "float32", **arguments: Any) -> TowerAndDecoder:
    """Returns the loaded pair, frozen."""
    backbone = pair(projector, dtype, **arguments)
    backbone.load()
    backbone.requires_grad_(False)
    return backbone


def records(pictures: int, questions: int) -> list[VisionFlanRecord]:
    """Returns questions with answers about rendered scenes, at most so many a picture, those of one together."""
    return list(tuning_records(0, TRAINING_PART, pictures, questions))


def sample_of(record: VisionFlanRecord, *, answered: bool = True) -> Sample:
    """Returns a record as a conversation of one turn."""
    turn = Turn(record.instruction, record.answer if answered else "")
    return Sample(record.id, record.image, record.image_name, (turn,), (record.task_name,), record.id)


def batch_of(backbone: TowerAndDecoder, samples: Sequence[Sample], *, answered: bool = True) -> Batch:
    """Returns the project's batch of conversations in the model's own template, pixels in the backbone's type."""
    processor, template = backbone.processor(), template_named("native")
    texts = processor.encode_all(list(samples), template, with_answers=answered)
    encoded = [encoded_sample(*pair, processor, "a test") for pair in zip(samples, texts, strict=True)]
    batch = Collator(processor.eos_token_id)(encoded)
    assert isinstance(batch, Batch)
    batch.pixel_values = batch.pixel_values.to(backbone.dtype)
    return batch


def library_tokenizer() -> Any:
    """Returns the language model's tokenizer, read by the library's own loader."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(pair_folder() / "language", local_files_only=True, trust_remote_code=False)


def written(tokenizer: Any, turns: Sequence[Turn]) -> str:
    """Returns a conversation about a picture as the library renders the chat template; an empty answer is asked for."""
    messages = []
    for number, turn in enumerate(turns):
        mark = "" if number else f"{IMAGE_MARK}\n"
        messages.append({"role": "user", "content": f"{mark}{turn.question}"})
        if turn.answer:
            messages.append({"role": "assistant", "content": turn.answer})
    asks = not turns[-1].answer
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks))


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    """Returns the tokens of a text as it is."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass
class LibraryPair:
    """Transformers' models of the pair, each read by its own loader, and the projector's tensors.

    Attributes:
        tower: Dinov2Model.
        language: LlamaForCausalLM.
        tokenizer: Of the language model's folder.
        pictures: The tower's image processor, for pictures of 112 pixels.
        weight: (576, 384).
        bias: (576,).
    """

    tower: Any
    language: Any
    tokenizer: Any
    pictures: Any
    weight: Tensor
    bias: Tensor

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        return int(self.tokenizer.convert_tokens_to_ids("<|im_end|>"))

    def pixels(self, image: Any) -> Tensor:
        """Returns (1, 3, 112, 112)."""
        return self.pictures(image, return_tensors="pt")["pixel_values"].to(self.weight.dtype)

    def picture_rows(self, pixels: Tensor) -> Tensor:
        """Returns (B, 64, 576): the states in front of the last block, without CLS, through the projector."""
        states = self.tower(pixels, output_hidden_states=True).hidden_states[FEATURE_LAYER]
        return linear(states[:, 1:], self.weight, self.bias)

    def text(self, question: str, answer: str = "") -> str:
        """Returns a conversation of one turn as the tokenizer's chat template writes it."""
        return written(self.tokenizer, [Turn(question, answer)])

    def tokens(self, text: str) -> list[int]:
        """Returns the tokens of a text as it is."""
        return tokens_of(self.tokenizer, text)

    def embedded(self, tokens: Sequence[int]) -> Tensor:
        """Returns (1, T, 576)."""
        return self.language.get_input_embeddings()(torch.tensor([list(tokens)]))

    def rows(self, image: Any, question: str, answer: str = "") -> Tensor:
        """Returns (1, S, 576): the words with the picture's rows in the place of its mark."""
        before, behind = self.text(question, answer).split(IMAGE_MARK)
        parts = [
            self.embedded(self.tokens(before)),
            self.picture_rows(self.pixels(image)),
            self.embedded(self.tokens(behind)),
        ]
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def generated(self, image: Any, question: str, new_tokens: int) -> list[int]:
        """Returns what ``generate`` answers greedily, without the end token."""
        rows = self.rows(image, question)
        mask = torch.ones(rows.shape[:2], dtype=torch.long)
        found = self.language.generate(
            inputs_embeds=rows, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, eos_token_id=self.end
        )
        return [int(token) for token in found[0] if int(token) != self.end]


def library_pair(projector: Path, dtype: torch.dtype = torch.float32) -> LibraryPair:
    """Reads transformers' models with the library's loaders."""
    from safetensors.torch import load_file
    from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM

    folder = pair_folder()
    tower = AutoModel.from_pretrained(
        folder / "vision", dtype=dtype, local_files_only=True, trust_remote_code=False
    ).eval()
    language = AutoModelForCausalLM.from_pretrained(
        folder / "language", dtype=dtype, local_files_only=True, trust_remote_code=False
    ).eval()
    sizes = {"size": {"shortest_edge": IMAGE_SIZE}, "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE}}
    pictures = AutoImageProcessor.from_pretrained(
        folder / "vision", **sizes, local_files_only=True, trust_remote_code=False
    )
    tokenizer = library_tokenizer()
    for module in (tower, language):
        module.requires_grad_(False)
    tensors = load_file(projector)
    return LibraryPair(tower, language, tokenizer, pictures, tensors["weight"].to(dtype), tensors["bias"].to(dtype))


def first_of_each(found: Sequence[VisionFlanRecord], number: int) -> list[VisionFlanRecord]:
    """Returns the first record of each of the first pictures."""
    first: dict[str, VisionFlanRecord] = {}
    for record in found:
        first.setdefault(record.image_name, record)
    return list(islice(first.values(), number))
