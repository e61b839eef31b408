"""A CLIP model of open_clip as teacher, from a folder on this machine; nothing is fetched."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.config_values import divisible, mapping, whole_number
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.towers.open_clip_config import MOST_LAYERS, MOST_WIDTH, check_tower_config
from lightning_m2pt.backbones.weight_files import compare_tensors, shapes_of, stored_tensors
from lightning_m2pt.configuration.paths import FilePath
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.file_hashes import sha256_of_file
from lightning_m2pt.tuning.regularisers.teacher import LARGEST_SCALE, Teacher, of_norm_one, resized

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
WORD_TABLE = "token_embedding.weight"
WORDS = 49_408
"""Entries of the vocabulary that comes with open_clip."""
TEXT = "model_cfg.text_cfg."
TEXT_SIZES = {"context_length", "vocab_size", "width", "heads", "layers"}


class OpenClipTeacher(Teacher):
    """A CLIP model of open_clip: vision transformer and text transformer, with the vocabulary that open_clip brings.

    It computes in float32. A picture is resized to the side that the model reads (bicubic, antialiased), if it has
    another one, and normalised with the model's own means and deviations.

    Args:
        folder: Folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``, as published.
    """

    kind = "open_clip"
    mean: Tensor
    std: Tensor

    def __init__(self, folder: FilePath) -> None:
        super().__init__()
        self.folder = Path(folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration, looked at."""
        path = self.folder / CONFIG
        content = read_json(path, self.where)
        check_tower_config(content, path)
        text = content["model_cfg"].get("text_cfg")
        if not isinstance(text, dict) or set(text) - TEXT_SIZES or content["model_cfg"].get("custom_text"):
            raise BadInputError(
                "its text tower is not the plain one of CLIP",
                where=f"{path}: model_cfg.text_cfg",
                expected=f"{', '.join(sorted(TEXT_SIZES))}, and no other key",
                hint="the ViT-B/32 of OpenAI as open_clip publishes it is one",
            )
        if text.get("vocab_size", WORDS) != WORDS:
            raise BadInputError(
                f"its vocabulary has {text['vocab_size']} entries, and open_clip's has {WORDS:,}",
                where=f"{path}: model_cfg.text_cfg.vocab_size",
                expected="a model that was trained with open_clip's own tokenizer",
            )
        for key, most, default in (("context_length", MOST_WIDTH, 77), ("layers", MOST_LAYERS, 12)):
            whole_number(text, f"{TEXT}{key}", path, most, default=default)
        width = whole_number(text, f"{TEXT}width", path, MOST_WIDTH, default=512)
        divisible(path, f"{TEXT}width", width, "heads", whole_number(text, f"{TEXT}heads", path, width, default=8))
        return content

    @override
    def check_files(self) -> None:
        weights = self.folder / WEIGHTS
        stored = stored_tensors(weights)
        if WORD_TABLE not in stored:
            raise BadInputError(
                "this teacher has no text tower, only a vision tower",
                where=f"{self.where}: {weights}",
                expected="a whole CLIP model",
                hint="RowsTeacher compares a picture's rows with word embeddings of an embedded backbone",
            )
        compare_tensors(shapes_of(self._on_meta()), stored, weights)

    @override
    def check_texts(self, texts: Iterable[str]) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        tokenizer, context = SimpleTokenizer(), self._context()
        for text in texts:
            tokens = len(tokenizer.encode(text)) + 2
            if tokens > context:
                raise BadInputError(
                    f"the text {text!r:.60} has {tokens} tokens, of which open_clip would read {context}",
                    where=self.where,
                    expected=f"answers of which a text has at most {context} tokens",
                )

    @override
    def build(self) -> None:
        import open_clip
        from safetensors.torch import load_file

        if hasattr(self, "clip"):
            return
        self.check_files()
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # open_clip draws what is overwritten below
            self.clip = open_clip.CLIP(**self._arguments()).float()
            pictures = self.config["preprocess_cfg"]
            for name in ("mean", "std"):
                self.register_buffer(name, torch.tensor(pictures[name]).view(3, 1, 1), persistent=False)
        self.clip.load_state_dict(load_file(self.folder / WEIGHTS), strict=True)
        self.requires_grad_(False).eval()

    @override
    def content(self) -> str:
        files = [sha256_of_file(self.folder / name) for name in (CONFIG, WEIGHTS)]
        return hashlib.sha256("".join(files).encode()).hexdigest()

    @override
    def knows(self, backbone: Backbone) -> bool:
        own = self.clip.visual.conv1.weight
        towers = backbone.used_tensors()["vision"].values()
        return any(each.shape == own.shape and torch.equal(each, own.to(each)) for each in towers)

    @override
    def picture_features(self, pixels: Tensor) -> Tensor:
        given = resized(pixels.to(self.mean.dtype), self.config["model_cfg"]["vision_cfg"]["image_size"])
        return of_norm_one(self.clip.encode_image((given - self.mean) / self.std))

    @override
    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        from open_clip.tokenizer import SimpleTokenizer

        tokens = SimpleTokenizer()(list(texts), self._context())
        return of_norm_one(self.clip.encode_text(tokens.to(self.mean.device)))

    @override
    def scale(self) -> float:
        return min(max(math.exp(float(self.clip.logit_scale)), 1.0), LARGEST_SCALE)

    @override
    def held_bytes(self) -> int:
        return sum(int(each.numel()) for each in self._on_meta().parameters()) * torch.float32.itemsize

    @override
    def kept_bytes(self, pictures: int) -> int:
        vision = self.config["model_cfg"]["vision_cfg"]
        rows = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
        ratio = float(vision.get("mlp_ratio") or 4.0)
        # Both norms' inputs, the joint projection, the attention's output, the residual, and the MLP's two widths.
        numbers = vision["width"] * (8 + 2 * ratio) * rows * vision["layers"]
        return int(pictures * numbers) * torch.float32.itemsize

    def _context(self) -> int:
        return int(self.config["model_cfg"]["text_cfg"].get("context_length") or 77)

    def _arguments(self) -> dict[str, Any]:
        """Returns what open_clip's class takes, without what would only change its training."""
        model = mapping(self.config, "model_cfg", self.folder / CONFIG)
        vision, text = (
            {key: value for key, value in model[each].items() if value is not None}
            for each in ("vision_cfg", "text_cfg")
        )
        kept: dict[str, Any] = {key: model[key] for key in ("embed_dim", "quick_gelu") if key in model}
        return {**kept, "vision_cfg": {**vision, "patch_dropout": 0.0}, "text_cfg": text}

    def _on_meta(self) -> Any:  # noqa: ANN401  (a library's module)
        import open_clip

        with torch.device("meta"):
            return open_clip.CLIP(**self._arguments())
