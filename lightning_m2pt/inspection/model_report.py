"""What ``m2pt models show`` knows of a model: all of it from configurations and texts, nothing from weights."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_m2pt.backbones.chat_template_files import (
    CHAT_TEMPLATE,
    OLD_TEMPLATE_FILE,
    PROCESSOR_SETTINGS,
    TEMPLATE_FILE,
    TOKENIZER_SETTINGS,
    default_of,
)
from lightning_m2pt.backbones.config_values import bad_key, shown_value
from lightning_m2pt.backbones.decoders.reference import (
    check_decoder_config,
    check_decoder_model,
    installed_decoder,
    runs_by_reference,
)
from lightning_m2pt.backbones.decoders.rotations import usable_positions
from lightning_m2pt.backbones.families.known import FAMILIES
from lightning_m2pt.backbones.foreign_code import CONFIG_FILE, refuse_foreign_code
from lightning_m2pt.backbones.json_files import read_json
from lightning_m2pt.backbones.language_model import model_on_meta
from lightning_m2pt.backbones.proven_forms import PROVEN_FORMS
from lightning_m2pt.backbones.towers.known import OF_TRANSFORMERS, tower_of
from lightning_m2pt.backbones.towers.of_open_clip import CONFIG as OPEN_CLIP_CONFIG
from lightning_m2pt.backbones.towers.of_timm import ARCHITECTURE as TIMM_ARCHITECTURE
from lightning_m2pt.inspection.model_facts import Load, whole_model_facts

KEY = "command line"
LICENCE = re.compile(r"^license(?:_name)?:\s*[\"']?([\w .+-]{1,60}?)[\"']?\s*$", re.MULTILINE)
"""A line of the front matter of a model's README."""
LONGEST_README = 1_000_000
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE")


def model_report(folder: Path, load: Load) -> dict[str, Any]:
    """Returns what a model is and takes, as JSON values.

    Args:
        folder: Its folder; its configuration is all that has to be there.
        load: What memory is estimated for.

    Raises:
        BadInputError: If the model is of no known kind, or its configuration asks for what is refused.
    """
    refuse_foreign_code(folder, KEY)
    path = folder / CONFIG_FILE
    is_of_open_clip = not path.is_file() and (folder / OPEN_CLIP_CONFIG).is_file()
    content = {} if is_of_open_clip else read_json(path, KEY)
    kind = content.get("model_type")
    if not isinstance(kind, str | None):
        raise unknown_model(content, path)
    if kind in {family.model_type for family in FAMILIES.values()}:
        found = whole_model_facts(folder, load)
    elif kind in PROVEN_FORMS or (kind is not None and installed_decoder(kind) is not None):
        check_decoder_config(content, path)
        found = language_model_facts(folder, content)
    elif is_of_open_clip or kind in OF_TRANSFORMERS or (kind is None and TIMM_ARCHITECTURE in content):
        return {**tower_facts(folder), "licence": licence_of(folder)}
    else:
        raise unknown_model(content, path)
    return {**found, "template": template_of(folder), "licence": licence_of(folder)}


def tower_facts(folder: Path) -> dict[str, Any]:
    """Returns what a vision tower is that a language model can be paired with."""
    tower = tower_of(folder)
    sizes, module = tower.sizes, tower.on_meta()
    parameters = sum(
        parameter.numel() for name, parameter in module.named_parameters() if not name.startswith(tower.uncounted())
    )
    return {
        "kind": "vision tower",
        "architecture": type(module).__name__,
        "vision": {
            "blocks": sizes.layers,
            "width": sizes.width,
            "patches": (sizes.image_size // sizes.patch_size) ** 2,
            "patch_size": sizes.patch_size,
            "image_size": sizes.image_size,
        },
        "parameters": {"vision": parameters, "total": parameters},
        "prefixes": tower.prefix_refused or "exact",
    }


def template_of(folder: Path) -> str | None:
    """Returns the file that holds the model's own chat template; None if it has none."""
    for name in (TEMPLATE_FILE, OLD_TEMPLATE_FILE, PROCESSOR_SETTINGS, TOKENIZER_SETTINGS):
        path = folder / name
        if path.is_file() and (
            name == TEMPLATE_FILE or default_of(read_json(path, KEY).get(CHAT_TEMPLATE)) is not None
        ):
            return name
    return None


def language_model_facts(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a language model is that a tower can be paired with.

    Raises:
        BadInputError: If the library cannot build it, or it is no stack of layers that the reference can run.
    """
    model = model_on_meta(folder)
    reference = runs_by_reference(content)
    if reference:
        check_decoder_model(model, folder / CONFIG_FILE)
    config = model.config
    return {
        "kind": "language model",
        "architecture": type(model).__name__,
        "runs": "reference" if reference else "fast",
        "language": {
            "model_type": config.model_type,
            "layers": config.num_hidden_layers,
            "width": config.hidden_size,
            "heads": config.num_attention_heads,
            "key_value_heads": getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
            "head_width": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            "vocabulary": config.vocab_size,
            "positions": usable_positions(content),
        },
        "parameters": {"language": model.num_parameters(), "total": model.num_parameters()},
    }


def unknown_model(content: Mapping[str, Any], path: Path) -> Exception:
    """Returns the refusal of a model of no known kind."""
    named, kind = content.get("architectures"), content.get("model_type")
    what = "nothing names a class" if not named and not kind else f"{shown_value(named or kind)} is not known"
    return bad_key(
        path,
        "architectures",
        what,
        f"{', '.join(FAMILIES)}; language models {', '.join(PROVEN_FORMS)}; towers {', '.join(OF_TRANSFORMERS)}",
        "m2pt models list tells about each",
    )


def licence_of(folder: Path) -> str | None:
    """Returns the licence that a model's README or folder names; None if neither does."""
    readme = folder / "README.md"
    if readme.is_file() and readme.stat().st_size < LONGEST_README:
        text = readme.read_text(encoding="utf-8", errors="replace")
        front = text.split("\n---", 1)[0] if text.startswith("---") else ""
        if (match := LICENCE.search(front)) is not None:
            return match[1]
    return next((f"see {name}" for name in LICENCE_FILES if (folder / name).is_file()), None)
