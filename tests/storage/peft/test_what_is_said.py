"""An imported adapter says all that one of ours does: its base's type and pictures, and the whole of its template."""

import json
from pathlib import Path

import yaml

from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.backbones.origins.pictures import picture_settings
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.main import main
from tests.support.peft.written_folders import PREFIX, prefix_tensors, write_peft

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
