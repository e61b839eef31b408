"""An imported adapter says all that one of ours does: its base's type and pictures, and the whole of its template."""

import json
from pathlib import Path

import pytest
import yaml

from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.backbones.origins.pictures import picture_settings
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.main import main
from lightning_m2pt.storage.foreign.peft.imported_card import imported_card
from lightning_m2pt.storage.foreign.peft.reading import read_peft_folder
from tests.support.peft.written_folders import LORA, PREFIX, low_rank_tensors, prefix_tensors, write_peft

OWN = {"before_answer": "\nA: ", "before_question": "Q: ", "system": "Be brief.\n", "own_system": "<system>\n"}


def test_base_pictures_and_template_are_said(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(OWN))
    folder = write_peft(tmp_path / "adapter", PREFIX, prefix_tensors())
    words = ["--base", "testbed", "--template", str(own), "--output", str(tmp_path / "made")]
    assert main(["convert", str(folder), *words]) == 0
    config = json.loads((tmp_path / "made" / "adapter" / "adapter_config.json").read_text())
    backbone, template = embedded_backbone("testbed"), template_named(str(own))
    assert config["base_dtype"] == "float32"
    assert config["base"] == {"kind": "embedded", "class": "OpenClipLlama", "arguments": {"name": "testbed"}}
    assert config["pictures"] == picture_settings(backbone)
    assert config["pictures"] == {
        "size": 48,
        "mean": 3 * [0.35],
        "std": 3 * [0.3],
        "interpolation": "bicubic",
        "resize": "shortest_edge",
    }
    assert (config["template"], config["template_content"]["system"]) == (template.name, "Be brief.\n")
    assert config["template_sha256"] == backbone.processor().bound(template).digest


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "r 2; lora_alpha 4; target_modules `q_proj`, `up_proj`"),
        ({"target_modules": ".*\\.(q_proj|up_proj)"}, "r 2; lora_alpha 4; target_modules by a pattern"),
        ({"target_modules": ["q_proj", "up_proj", *map("m{}".format, range(12))]}, "`m9` and 2 more"),
        ({"target_modules": ["q_proj", "x`](/home/me)"]}, "r 2; lora_alpha 4"),
    ],
)
def test_the_card_says_what_pefts_configuration_does(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    peft = read_peft_folder(write_peft(tmp_path / "adapter", {**LORA, **settings}, low_rank_tensors()))
    card = imported_card(peft, "lora")
    assert "Made of adapter_model.safetensors, PEFT's LORA, as the method lora." in card
    assert "trained on `somewhere/language`; the base" in card
    assert f"{said}.\n" in card
    assert "Its licence is not known here" in card
    assert "/home" not in card


def test_a_prefix_and_a_folder_of_somebodys_on_the_card(tmp_path: Path) -> None:
    own = {**PREFIX, "base_model_name_or_path": "/home/me/secret"}
    card = imported_card(read_peft_folder(write_peft(tmp_path / "adapter", own, prefix_tensors())), "prefix")
    assert "Its own configuration says: num_virtual_tokens 3.\n" in card
    assert "trained on a base in a folder; the base" in card
    assert "secret" not in card
