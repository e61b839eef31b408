"""A checkpoint of M2PT's published code as a base and an adapter.

The checkpoint holds the projector and the head as they were tuned; those of before are not in it. So in a base that is
made of it these two are the tuned ones as well, and leaving the part ``interaction`` out changes nothing there.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.base_files import TOKENIZER_CONFIG, TOKENIZER_FILES
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.language_model import ROTARY_TABLE, check_language_folder
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.tokenizer_files import FAST
from lightning_m2pt.backbones.towers.open_clip_config import check_tower_config
from lightning_m2pt.backbones.weight_files import INDEX, SINGLE, read_tensors, stored_in_folder
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.storage.adapter_base import adapter_base_of
from lightning_m2pt.storage.adapter_folder import save_adapter
from lightning_m2pt.storage.foreign.clip_configs import (
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    open_clip_config,
    tower_config,
)
from lightning_m2pt.storage.foreign.clip_layouts import (
    OPEN_CLIP,
    POSITION_IDS,
    TRANSFORMERS,
    TowerSizes,
    sizes_of,
    to_open_clip,
)
from lightning_m2pt.storage.foreign.published_config import is_known_tower, language_config
from lightning_m2pt.storage.foreign.published_parts import PublishedParts, assign_lists, prompt_length
from lightning_m2pt.storage.foreign.weights import PROJECTOR_FILE, origin_of
from lightning_m2pt.storage.foreign.written import Drafts, drafts, new_folder, refuse_not_finite

BASE, ADAPTER, EXPERIMENT = "base", "adapter", "backbone.yaml"
PUBLISHED_CONFIG = "published_config.json"
"""The checkpoint's own configuration, kept beside the base's parts for the way back."""
LARGE_CLIP_HEADS = 16
TEMPLATE = "vicuna_v1"
"""The published training's conversation form."""
WORKING_TYPE = {torch.bfloat16: "bfloat16", torch.float64: "float64"}
"""Of the base, by the type of its word embeddings; others are computed in float32."""
CARD = """# M2PT adapter of a published checkpoint

Imported from {files}. Prompt rows: {textual} textual, {visual} visual per layer. The base is named by hash in
`adapter_config.json`.
"""


def import_with_base(
    parts: PublishedParts, output: Path, folder: Path, tower_folder: Path | None, tokenizer: Path | None
) -> None:
    """Makes a base and an adapter of a whole checkpoint.

    Args:
        parts: What was read.
        output: The folder that is made: ``base``, ``adapter`` and ``backbone.yaml``.
        folder: The checkpoint's folder, for its configuration and tokenizer.
        tower_folder: Folder with the tower's configuration; needed unless it is one of OpenAI's large ones.
        tokenizer: Folder with the tokenizer, if not the checkpoint's.

    Raises:
        BadInputError: If parts or configurations are missing, or do not fit together.
    """
    config_path = folder / "config.json"
    published = read_json(config_path, str(folder))
    language = language_config(published, config_path)
    for name, there in (("a vision tower", parts.tower), ("a head", parts.head), ("a projector", parts.projector)):
        if not there:
            raise BadInputError(f"there is no {name[2:]} in it", where=str(folder), expected=f"a model with {name}")
    source = str(parts.files[0])
    tables = {f"{TRANSFORMERS}{POSITION_IDS}": parts.tower[POSITION_IDS]} if POSITION_IDS in parts.tower else {}
    tower = to_open_clip(parts.tower, source)
    sizes = sizes_of({name.removeprefix(OPEN_CLIP): one for name, one in tower.items()}, source)
    vision = vision_config(published, sizes, tower_folder, config_path)
    assign_lists(parts, (sizes.layers, sizes.width), (language["num_hidden_layers"], language["hidden_size"]))
    with new_folder(output) as draft:
        base = draft / BASE
        origin = origin_of(parts.files[-1])
        with drafts() as written:
            written.add_tensors(base / "vision" / OPEN_CLIP_WEIGHTS, {**tower, **tables}, origin)
            written.add_bytes(base / "vision" / OPEN_CLIP_CONFIG, as_json(vision))
            written.add_tensors(base / PROJECTOR_FILE, parts.projector, origin)
            written.add_bytes(base / PUBLISHED_CONFIG, config_path.read_bytes())
            written.add_bytes(base / "language" / "config.json", as_json(language))
            add_decoder(written, base / "language", parts)
            for path in tokenizer_files(tokenizer or folder):
                written.add_bytes(base / "language" / path.name, path.read_bytes())
        dtype = WORKING_TYPE.get(parts.decoder["model.embed_tokens.weight"].dtype, "float32")
        backbone = base_backbone(base, dtype)
        check_base(backbone)
        write_adapter(draft / ADAPTER, parts, backbone)
        (draft / EXPERIMENT).write_text(experiment_of_base(dtype), encoding="utf-8")


def check_base(backbone: OpenClipLlama) -> None:
    """Compares every tensor of an imported base with its configurations; a tokenizer may still be missing.

    Raises:
        BadInputError: If something does not fit.
    """
    if (backbone.language_folder / FAST).is_file():
        backbone.check_files()
    else:
        check_language_folder(backbone.language_folder)


def import_onto(parts: PublishedParts, output: Path, backbone: Backbone) -> None:
    """Makes an adapter of trained tensors for a base that is there already.

    Args:
        parts: What was read.
        output: The folder that is made, with ``adapter`` in it.
        backbone: The base; its weights are not loaded.

    Raises:
        BadInputError: If the tensors do not fit the base, or there are none.
    """
    shape = backbone.shape
    assign_lists(parts, (shape.vision_layers, shape.vision_width), (shape.text_layers, shape.text_width))
    refuse_another_decoder(parts, backbone)
    with new_folder(output) as draft:
        write_adapter(draft / ADAPTER, parts, backbone)


def refuse_another_decoder(parts: PublishedParts, backbone: Backbone) -> None:
    """Compares what a checkpoint holds of its frozen language model with the base, in the checkpoint's type.

    Raises:
        BadInputError: If a tensor has other numbers: the prompts were tuned on another base.
    """
    if not parts.decoder or not isinstance(backbone, OpenClipLlama | TowerAndDecoder):
        return
    stored = stored_in_folder(backbone.language_folder)
    for name, tensor in parts.decoder.items():
        if name.endswith(ROTARY_TABLE):
            continue
        there = read_tensors(stored, [name], tensor.dtype)
        if name not in there or not torch.equal(there[name], tensor):
            raise BadInputError(
                f"{name} is not the base's: it was tuned on another language model",
                where=str(parts.places[name]),
                expected=f"the numbers in {backbone.language_folder}",
                hint="without --config the checkpoint's own base is imported",
            )


def write_adapter(folder: Path, parts: PublishedParts, backbone: Backbone) -> None:
    """Writes the adapter of what a checkpoint has trained, in float32.

    Raises:
        BadInputError: If tensors do not fit the base, or are not finite.
    """
    shape = backbone.shape
    method = M2PT(
        visual_length=prompt_length(parts.visual, shape.vision_layers, shape.vision_width, "visual prompts"),
        textual_length=prompt_length(parts.textual, shape.text_layers, shape.text_width, "textual prompts"),
        interaction=bool(parts.projector),
        lm_head=bool(parts.head),
    )
    if not method.part_names():
        raise BadInputError("nothing in it was trained", where="the checkpoint", expected="prompts, or a projector")
    method.check(shape)
    backbone.build_on_meta()
    method.build(backbone, torch.Generator())
    tensors = tensors_of_method(parts)
    method.built_shapes = {name: tuple(one.shape) for name, one in method.named_tensors().items()}
    shapes = method.built_shapes
    wrong = [name for name in {**tensors, **shapes} if shape_of(tensors, name) != shapes.get(name)]
    if wrong:
        expected = shapes.get(wrong[0])
        raise BadInputError(
            f"{wrong[0]} has the shape {shape_of(tensors, wrong[0])}",
            where="the checkpoint",
            expected=f"{expected}, as the base needs it" if expected else "what the base has",
        )
    refuse_not_finite(tensors, "the checkpoint")
    method.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in method.named_tensors().items():
            parameter.copy_(tensors[name])
    card = CARD.format(
        files=", ".join(path.name for path in parts.files), textual=method.textual_length, visual=method.visual_length
    )
    save_adapter(folder, method, adapter_base_of(backbone), card, template=TEMPLATE)


def tensors_of_method(parts: PublishedParts) -> dict[str, Tensor]:
    """Returns what was trained under the method's names."""
    return {
        **{f"visual_prompts.rows.{layer}": one for layer, one in parts.visual.items()},
        **{f"textual_prompts.rows.{layer}": one for layer, one in parts.textual.items()},
        **{f"interaction.{name}": one for name, one in parts.projector.items()},
        **{f"lm_head.{name}": one for name, one in parts.head.items()},
    }


def shape_of(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    """Returns a tensor's shape; None if it is not there."""
    return tuple(tensors[name].shape) if name in tensors else None


def vision_config(
    published: Mapping[str, Any], sizes: TowerSizes, tower_folder: Path | None, path: Path
) -> dict[str, Any]:
    """Returns open_clip's configuration of the tower, whose heads and pictures its tensors do not tell.

    Raises:
        BadInputError: If nobody says them.
    """
    if tower_folder is not None and (tower_folder / OPEN_CLIP_CONFIG).is_file():
        config = read_json(tower_folder / OPEN_CLIP_CONFIG, str(tower_folder))
        check_tower_config(config, tower_folder / OPEN_CLIP_CONFIG)
        return {**config, "model_cfg": {**config["model_cfg"], "embed_dim": sizes.projection or 1}}
    if tower_folder is not None:
        return open_clip_config(tower_folder, sizes)
    if not is_known_tower(published):
        raise BadInputError(
            f"the tower {published.get('mm_vision_tower')!r:.80} is none that is known",
            where=f"{path}: mm_vision_tower",
            expected="OpenAI's clip-vit-large-patch14, or --tower DIR with its configuration and preprocessing",
        )
    known = read_json(EMBEDDED / "vicuna7b" / "vision" / OPEN_CLIP_CONFIG, str(path))
    return {**known, "model_cfg": tower_config(sizes, LARGE_CLIP_HEADS, quick_gelu=True)}


def add_decoder(written: Drafts, folder: Path, parts: PublishedParts) -> None:
    """Adds the language model with its head, one file for each of the checkpoint's, and their index."""
    tensors = {**parts.decoder, "lm_head.weight": parts.head["weight"]}
    places = parts.places
    files = [path for path in parts.files if path in places.values()]
    if len(files) == 1:
        written.add_tensors(folder / SINGLE, tensors, origin_of(files[0]))
        return
    weight_map: dict[str, str] = {}
    for number, path in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        of_file = {key: one for key, one in tensors.items() if places[key] == path}
        written.add_tensors(folder / name, of_file, origin_of(path))
        weight_map |= dict.fromkeys(of_file, name)
    total = sum(one.nbytes for one in tensors.values())
    written.add_bytes(folder / INDEX, as_json({"metadata": {"total_size": total}, "weight_map": weight_map}))


def tokenizer_files(folder: Path) -> list[Path]:
    """Returns the files of a tokenizer that a folder has."""
    return [path for name in (*TOKENIZER_FILES, TOKENIZER_CONFIG) if (path := folder / name).is_file()]


def base_backbone(base: Path, dtype: Any) -> OpenClipLlama:  # noqa: ANN401
    """Returns the backbone of an imported base, not loaded."""
    language = str(base / "language")
    return OpenClipLlama(
        str(base / "vision" / OPEN_CLIP_CONFIG),
        str(base / "vision" / OPEN_CLIP_WEIGHTS),
        language,
        language,
        str(base / PROJECTOR_FILE),
        dtype,
    )


def experiment_of_base(dtype: str) -> str:
    """Returns an experiment's part that names an imported base beside it."""
    return f"""# The base of an imported checkpoint: --config EXPERIMENT --config this file --adapter {ADAPTER}
model:
  backbone:
    class_path: {OpenClipLlama.__module__}.{OpenClipLlama.__name__}
    init_args:
      vision_config: {BASE}/vision/{OPEN_CLIP_CONFIG}
      vision_weights: {BASE}/vision/{OPEN_CLIP_WEIGHTS}
      language_config: {BASE}/language
      language_model: {BASE}/language
      projector_weights: {BASE}/{PROJECTOR_FILE}
      dtype: {dtype}
"""


def as_json(content: Mapping[str, Any]) -> bytes:
    """Returns a JSON file's content."""
    return (json.dumps(content, indent=2) + "\n").encode()
