"""A whole vision-language model's folder: what it may hold, checked from headers alone, and the model read strictly."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_m2pt.backbones.base_files import DECIDES_NOTHING, refuse_changed, tokenizer_content, without_keys
from lightning_m2pt.backbones.config_values import bad_key, divisible, mapping, one_of, shown_value, whole_number
from lightning_m2pt.backbones.families.family import Family, module_at
from lightning_m2pt.backbones.families.known import family_of
from lightning_m2pt.backbones.filling.unfilled import Unfilled
from lightning_m2pt.backbones.foreign_code import CONFIG_FILE, INSTALLED_CODE_ONLY, refuse_foreign_code
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.language_model import ROTARY_TABLE, give_tables, refuse_adapter
from lightning_m2pt.backbones.proven_forms import (
    MOST_HEADS,
    MOST_LAYERS,
    MOST_TOKENS,
    MOST_WIDTH,
    PROVEN_FORMS,
    VALUES,
    check_language_config,
)
from lightning_m2pt.backbones.quantised import Quantization, quantise_layers
from lightning_m2pt.backbones.towers.open_clip_config import MOST_PIXELS
from lightning_m2pt.backbones.weight_files import (
    INDEX,
    Stored,
    compare_tensors,
    shapes_of,
    stored_in_folder,
)
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.file_hashes import sha256_of_file

KEY = "model.backbone.model"
TEXT, VISION = "text_config", "vision_config"
POSITION_TABLE = "position_ids"
"""Older checkpoints keep the numbers 0, 1, ... of a tower's positions; the library leaves them out as well."""
VERSION = "whole:"
"""What a whole model's fingerprint begins with."""
BOUNDS = {
    "num_hidden_layers": MOST_LAYERS,
    "hidden_size": MOST_WIDTH,
    "intermediate_size": 4 * MOST_WIDTH,
    "num_attention_heads": MOST_HEADS,
    "vocab_size": MOST_TOKENS,
    "depth": MOST_LAYERS,
    "num_heads": MOST_HEADS,
}
TOWER_ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh", "silu")
PICTURE_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""How pictures become numbers; they are part of what a model is."""
DECIDES_NO_ROW = {*DECIDES_NOTHING, TEXT, VISION}


@dataclass(frozen=True)
class WholeModel:
    """What a folder's configuration describes.

    Attributes:
        folder: The folder.
        family: The descriptor.
        config: The library's configuration object, its own defaults filled in.
    """

    folder: Path
    family: Family
    config: Any

    def fingerprint(self) -> str:
        """Returns the SHA-256 over everything that the model is built from, with its version in front.

        Raises:
            BadInputError: If a file is missing or a configuration is no JSON.
        """
        content = read_json(self.folder / CONFIG_FILE, KEY)
        index, pictures = self.folder / INDEX, [self.folder / name for name in PICTURE_FILES]
        described = {
            "config": without_keys(content, DECIDES_NO_ROW),
            **{part: without_keys(content.get(part, {}), DECIDES_NOTHING) for part in (TEXT, VISION)},
            "weights": {path.name: sha256_of_file(path) for path in self.weights()},
            "index": sha256_of_file(index) if index.is_file() else None,
            "tokenizer": tokenizer_content(self.folder),
            "pictures": {path.name: read_json(path, KEY) for path in pictures if path.is_file()},
        }
        return VERSION + hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def weights(self) -> list[Path]:
        """Returns the weight files that there are."""
        return sorted(self.folder.glob("*.safetensors"))

    def verify(self) -> None:
        """Reads every weight file, whatever is known of it.

        Raises:
            BadInputError: If one differs from what it was though its size and times are the same.
        """
        refuse_changed(self.weights())

    def check(self) -> None:
        """Compares the headers of the weight files with the model that the configuration describes.

        Raises:
            BadInputError: If tensors are missing, left over, or of another shape or type.
        """
        refuse_adapter(self.folder)
        self._stored(self.on_meta())

    def on_meta(self, dtype: torch.dtype | None = None) -> Any:  # noqa: ANN401
        """Builds the library's model without memory.

        Args:
            dtype: Type of the weights; None takes the configuration's.

        Raises:
            BadInputError: If transformers refuses the configuration.
        """
        from transformers import AutoModelForImageTextToText

        try:
            with torch.device("meta"):
                return AutoModelForImageTextToText.from_config(self.config, dtype=dtype, trust_remote_code=False)
        except Exception as error:  # whatever the library's code meets
            raise refusal_of_library(error, self.folder) from error

    def load(self, dtype: torch.dtype, quantization: Quantization | None = None) -> Any:  # noqa: ANN401
        """Reads the model strictly: no tensor of it is drawn at random, and none of the files is left unread.

        Args:
            dtype: Type of its weights.
            quantization: How the weights of its decoder's layers are packed; None leaves them as they are.

        Raises:
            BadInputError: If tensors are not exactly the model's, not finite, or a tied head has weights of its own,
                or a table of the model stands nowhere.
        """
        return self.unfilled(dtype, quantization).fill()

    def unfilled(self, dtype: torch.dtype, quantization: Quantization | None = None) -> Unfilled:
        """Builds what ``load`` reads, without memory.

        Raises:
            BadInputError: If stored tensors are not exactly the model's.
        """
        model = self.on_meta(dtype)
        stored, names = self._stored(model)
        decoder = module_at(model, self.family.decoder)
        if quantization:
            quantise_layers(model, decoder.layers, quantization)
        twin = (head_name(model), f"{self.family.decoder}.embed_tokens.weight")

        def give_all_tables() -> None:
            model.tie_weights()
            give_tables(decoder)
            self.family.give_tables(model)
            give_position_numbers(model)

        is_tied = model.config.tie_word_embeddings
        return Unfilled(model, stored, names, dtype, self.folder, twin if is_tied else None, give_all_tables)

    def _stored(self, model: Any) -> tuple[Stored, dict[str, str]]:  # noqa: ANN401
        """Returns the stored tensors under their names in the files, and these names' counterparts in the model."""
        stored = {
            name: one
            for name, one in stored_in_folder(self.folder).items()
            if not name.endswith((ROTARY_TABLE, f"embeddings.{POSITION_TABLE}"))
        }
        wanted = shapes_of(model)
        names = {name: name_in_model(name, self.family, wanted) for name in stored}
        times = Counter(names.values())
        twice = [name for name, own in names.items() if times[own] > 1]
        if twice:
            raise BadInputError(
                f"{twice[0]} and {twice[1]} are one tensor of the model",
                where=str(self.folder),
                expected="every tensor once",
            )
        head = head_name(model)
        if model.config.tie_word_embeddings and head not in names.values():
            del wanted[head]
        compare_tensors(wanted, {names[name]: one for name, one in stored.items()}, self.folder)
        return stored, names


def described_model(folder: Path) -> WholeModel:
    """Reads and checks a folder's ``config.json``; opens no weights.

    Raises:
        BadInputError: At the first key that is wrong or not proven.
    """
    refuse_foreign_code(folder, KEY)
    path = folder / CONFIG_FILE
    content = read_json(path, KEY)
    family = family_of(content, path)
    for key in ("quantization_config", "compression_config"):
        accepted, reason = VALUES[key]
        one_of(content, key, path, accepted, reason)
    parts = {part: mapping({part: {}, **content}, part, path) for part in (TEXT, VISION)}
    for part, inner in {"": content, **parts}.items():
        within = Path(f"{path}: {part}") if part else path
        for key, (values, reason) in INSTALLED_CODE_ONLY.items():
            one_of(inner, key, within, values, reason)
        for key, most in BOUNDS.items():
            if key in inner:
                whole_number(inner, key, within, most)
        refuse_unknown_kind(inner, within, family.towers if part == VISION else tuple(PROVEN_FORMS))
    config = library_config(folder)
    filled: dict[str, Any] = {part: getattr(config, part).to_dict() for part in (TEXT, VISION)}
    # Which class the decoder is follows from its model_type alone; the class that published files name need not exist.
    of_text, of_vision = Path(f"{path}: {TEXT}"), Path(f"{path}: {VISION}")
    check_language_config(family.text_as_proven(without_keys(filled[TEXT], {"architectures"}), of_text), of_text)
    check_vision_config(family.vision_as_proven(filled[VISION]), of_vision, family)
    family.check({**content, **filled}, path)
    refuse_odd_picture_tokens("image_token_id", family.picture_tokens(config), filled[TEXT]["vocab_size"], path)
    around = family.tokens_around_picture(config)
    refuse_odd_picture_tokens("vision_start_token_id, vision_end_token_id", around, filled[TEXT]["vocab_size"], path)
    return WholeModel(folder, family, config)


def refuse_odd_picture_tokens(key: str, tokens: tuple[int, ...], vocabulary: int, path: Path) -> None:
    """Refuses ids of pictures' tokens that are no tokens of the language model.

    Raises:
        BadInputError: Naming the first.
    """
    for token in tokens:
        if type(token) is not int or not 0 <= token < vocabulary:
            what = f"{shown_value(token)} is no token of the language model"
            raise bad_key(path, key, what, f"a whole number below {vocabulary:,}")


def refuse_unknown_kind(inner: Mapping[str, Any], path: Path, proven: tuple[str, ...]) -> None:
    """Refuses a part of a kind that the library has not, by its own key; what it has is looked at later.

    Raises:
        BadInputError: If it names one.
    """
    from transformers import CONFIG_MAPPING

    kind = inner.get("model_type")
    if kind is not None and not (isinstance(kind, str) and kind in CONFIG_MAPPING):
        raise bad_key(path, "model_type", f"{shown_value(kind)} is unknown to transformers", " or ".join(proven))


def library_config(folder: Path) -> Any:  # noqa: ANN401
    """Returns the library's configuration of a folder.

    Raises:
        BadInputError: If transformers refuses it.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # its validators raise errors of their own kinds
        raise refusal_of_library(error, folder) from error


def refusal_of_library(error: Exception, folder: Path) -> BadInputError:
    """Returns what is said where transformers refuses a configuration."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return BadInputError(
        f"transformers cannot build this model: {ascii(reason)[1:-1]:.200}",
        where=str(folder / CONFIG_FILE),
        expected="a configuration that the library takes",
    )


def check_vision_config(vision: Mapping[str, Any], path: Path, family: Family) -> None:
    """Looks whether a tower is a proven one whose sizes fit together.

    Raises:
        BadInputError: At the first thing that is wrong or not proven.
    """
    kind = vision.get("model_type")
    if kind not in family.towers:
        what = f"{shown_value(kind)} is not a proven tower of {family.architecture}"
        raise bad_key(path, "model_type", what, " or ".join(family.towers))
    for key in ("num_hidden_layers", "intermediate_size", "num_attention_heads"):
        whole_number(vision, key, path, BOUNDS[key])
    width = whole_number(vision, "hidden_size", path, MOST_WIDTH)
    divisible(path, "hidden_size", width, "num_attention_heads", vision["num_attention_heads"])
    image = whole_number(vision, "image_size", path, MOST_PIXELS)
    whole_number(vision, "patch_size", path, image)
    one_of(vision, "num_channels", path, (3,), "pictures have three channels")
    one_of(vision, "hidden_act", path, TOWER_ACTIVATIONS, "other activations are not proven")


def name_in_model(name: str, family: Family, known: Mapping[str, Any]) -> str:
    """Returns what the library's model calls a stored tensor; a name that it has nowhere stays as it is."""
    candidates = [name, *(new + name.removeprefix(old) for old, new in family.renamed if name.startswith(old))]
    return next((candidate for candidate in candidates if candidate in known), name)


def head_name(model: Any) -> str:  # noqa: ANN401
    """Returns the name of the head's weight in a whole model."""
    head = model.get_output_embeddings()
    return next(f"{name}.weight" for name, module in model.named_modules() if module is head)


def give_position_numbers(model: nn.Module) -> None:
    """Makes the numbers 0, 1, ... of towers' positions, which were built without memory."""
    for module in model.modules():
        table = dict(module.named_buffers(recurse=False)).get(POSITION_TABLE)
        if table is not None and table.is_meta:
            module.register_buffer(POSITION_TABLE, torch.arange(table.shape[-1]).expand(table.shape), persistent=False)
