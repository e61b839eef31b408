"""A stand-in for a teacher with a text tower, where there is none: a backbone's own rows and word embeddings."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.tokenizer_files import load_tokenizer
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.tuning.regularisers.teacher import LARGEST_SCALE, Teacher, of_norm_one, resized


class RowsTeacher(Teacher):
    """Cosine of a picture's mean row in the decoder and a text's mean word embedding. No published teacher.

    It needs no weights beside a backbone's, and shows on the testbed what the term does. A backbone learns to put rows
    where they answer questions, not next to words: what it scores is weaker than what CLIP scores. The base that is
    tuned may be its own teacher; the copy that teaches has no method.

    Args:
        folder: A backbone's folder, in the form of the embedded ones: ``vision``, ``language`` and ``projector``.
    """

    kind = "rows of a backbone, a stand-in"
    mean: Tensor
    std: Tensor

    def __init__(self, folder: FilePath) -> None:
        super().__init__()
        self.folder = Path(folder)

    @cached_property
    def described(self) -> OpenClipLlama:
        """The backbone, nothing loaded."""
        vision, language = self.folder / "vision", self.folder / "language"
        if not (vision.is_dir() and language.is_dir()):
            raise BadInputError(
                f"{self.folder} is no backbone's folder",
                where=self.where,
                expected="vision, language and projector in it, as in ${embedded:testbed}",
            )
        return OpenClipLlama(
            str(vision / "open_clip_config.json"),
            str(vision / "open_clip_model.safetensors"),
            str(language),
            str(language),
            str(self.folder / "projector" / "model.safetensors"),
            activation_checkpointing=False,
        )

    @override
    def check_files(self) -> None:
        self.described.check_files()

    @override
    def check_texts(self, texts: Iterable[str]) -> None:
        tokenizer = load_tokenizer(self.folder / "language")
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            if not ids or tokenizer.unk_token_id in ids:
                raise BadInputError(
                    f"the text {text!r:.60} has a word that this backbone does not know",
                    where=self.where,
                    expected="texts in its vocabulary",
                    hint='text: "{answer}" leaves everything but the answer out',
                )

    @override
    def build(self) -> None:
        if hasattr(self, "backbone"):
            return
        with torch.device("cpu"):
            self.described.load()
            for name, values in zip(("mean", "std"), self.described.pixel_normalisation(), strict=True):
                self.register_buffer(name, values.clone(), persistent=False)
        self.backbone = self.described
        self.tokenizer = load_tokenizer(self.folder / "language")
        self.requires_grad_(False).eval()

    @override
    def content(self) -> str:
        return self.described.fingerprint()

    @override
    def knows(self, backbone: Backbone) -> bool:
        return self.content() == backbone.fingerprint()

    @override
    def picture_features(self, pixels: Tensor) -> Tensor:
        given = (resized(pixels, self.backbone.shape.image_size) - self.mean) / self.std
        rows = self.backbone.connect(self.backbone.visual_rows(given).rows)
        return of_norm_one(of_norm_one(rows).mean(dim=1))

    @override
    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        table = self.backbone.token_embedding()
        means = []
        for text in texts:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            means.append(table(torch.tensor(ids, device=table.weight.device)).mean(dim=0))
        return of_norm_one(torch.stack(means))

    @override
    def scale(self) -> float:
        return LARGEST_SCALE

    @override
    def held_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*.safetensors"))

    @override
    def kept_bytes(self, pictures: int) -> int:
        shape = self.described.shape
        rows = pictures * (shape.patches + shape.vision_rows_in_front)
        numbers = 8 * shape.vision_width + 2 * shape.vision_mlp_width
        return rows * numbers * (shape.vision_layers - 1) * torch.float32.itemsize
