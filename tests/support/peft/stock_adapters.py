"""Adapters as stock PEFT makes and runs them, in a process of its own: no model or method of this project is in it.

    python -m tests.support.peft.stock_adapters FOLDER

``FOLDER/forms.json`` says for each name a base, PEFT's configuration and keywords; each name gets a folder with an
adapter of random numbers, and ``NAME.expected.safetensors`` with logits and greedy answers of the model read from it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import lightning_m2pt.torchvision_guard  # noqa: F401  (an unfitting torchvision must not stop transformers)
from lightning_m2pt.system.hidden_modules import hidden_module

with hidden_module("bitsandbytes"):  # which takes seconds
    from peft import LNTuningConfig, LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

CONFIGS = {
    "LORA": LoraConfig,
    "PREFIX_TUNING": PrefixTuningConfig,
    "PROMPT_TUNING": PromptTuningConfig,
    "LN_TUNING": LNTuningConfig,
}
NEW_TOKENS = 5


def base_of(folder: Path) -> Any:
    """Returns the library's model of a folder: a whole one, or a language model alone."""
    is_whole = "vision_config" in json.loads((folder / "config.json").read_text())
    kind = AutoModelForImageTextToText if is_whole else AutoModelForCausalLM
    return kind.from_pretrained(str(folder), dtype=torch.float32, trust_remote_code=False).eval()


def expected(model: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns logits of padded rows, (B, S, V), and greedy tokens of each sample alone, (B, T)."""
    mask, texts = given.pop("attention_mask"), []
    with torch.no_grad():
        logits = model(**given, attention_mask=mask).logits[:, -mask.shape[1] :]
        for sample, length in enumerate(mask.sum(dim=1).tolist()):
            one = {
                name: each[sample : sample + 1] if name == "pixel_values" else each[sample : sample + 1, :length]
                for name, each in given.items()
            }
            texts.append(greedy(model, one, mask[sample : sample + 1, :length]))
    return {"logits": logits.contiguous(), "greedy": torch.tensor(texts)}


def greedy(model: Any, one: dict[str, Tensor], mask: Tensor) -> list[int]:
    """Returns the most likely tokens behind one text, the whole run again for each."""
    tokens: list[int] = []
    embed = model.get_input_embeddings()
    for _ in range(NEW_TOKENS):
        logits = model(**one, attention_mask=mask).logits[0, -1].clone()
        if "pixel_values" in one:
            logits[59] = -torch.inf  # the token that stands for pictures
        tokens.append(int(logits.argmax()))
        new = torch.tensor([[tokens[-1]]])
        key = "input_ids" if "input_ids" in one else "inputs_embeds"
        one = {**one, key: torch.cat([one[key], new if key == "input_ids" else embed(new)], dim=1)}
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
    return tokens


def main(folder: Path) -> None:
    """Makes all of them."""
    for name, form in json.loads((folder / "forms.json").read_text()).items():
        config = CONFIGS[form["kind"]](**form["config"])
        torch.manual_seed(form.get("seed", 0))
        made = get_peft_model(base_of(folder / form["base"]), config)
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.requires_grad:
                    parameter.add_(form["std"] * torch.randn(parameter.shape))
        made.save_pretrained(folder / name)
        read = PeftModel.from_pretrained(base_of(folder / form["base"]), folder / name).eval().double()
        given = load_file(folder / f"{form['base']}.given.safetensors")
        save_file(expected(read, given), folder / f"{name}.expected.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
