"""A stand-in for the real pair where its files are not there: its widths and forms, few layers, random numbers."""

import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.testing.small_processor import word_tokenizer
from tests.support.towers.stored_pairs import old_name

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYERS, TOWER_BLOCKS = 2, 2


def store_real_pair(models: Path) -> Path:
    """Writes ``smollm2_dinov2`` into a folder of models; returns a projector with a record that names these weights."""
    from transformers import Dinov2Config, Dinov2Model, LlamaConfig, LlamaForCausalLM

    folder = models / "smollm2_dinov2"
    tower = Dinov2Config(
        hidden_size=384, num_hidden_layers=TOWER_BLOCKS, num_attention_heads=6, mlp_ratio=1, image_size=112,
        patch_size=14, layer_norm_eps=1e-6,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Dinov2Model(tower).to(torch.bfloat16)
    model.config.save_pretrained(folder / "vision")
    tensors = {old_name(name): tensor for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "vision" / "model.safetensors", {"format": "pt"})
    pictures = {
        "image_processor_type": "BitImageProcessor", "do_resize": True, "size": {"shortest_edge": 112},
        "do_center_crop": True, "crop_size": {"height": 112, "width": 112}, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225], "resample": 3, "do_convert_rgb": True,
    }  # fmt: skip
    (folder / "vision" / "preprocessor_config.json").write_text(json.dumps(pictures))
    decoder = LlamaConfig(
        hidden_size=576, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=9, num_key_value_heads=3,
        head_dim=64, vocab_size=50, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(decoder).to(torch.bfloat16).save_pretrained(folder / "language")
    tokenizer = word_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder / "language")
    return store_projector(folder)


def store_projector(pair: Path) -> Path:
    """Writes the package's projector into a pair's folder, with a record as if it was aligned between these weights.

    The package's own record names the real weights, so that its file goes with no others.
    """
    projector = pair / "aligned" / "projector" / "model.safetensors"
    projector.parent.mkdir(parents=True)
    shutil.copyfile(EMBEDDED / "smollm2_dinov2" / "projector" / "model.safetensors", projector)
    weights = [f"{part}/model.safetensors" for part in ("vision", "language")]
    record = {
        "alignment_version": 1,
        "settings": {"name": "smollm2_dinov2"},
        "pair": {"feature_layer": -2},
        "base": {name: hashlib.sha256((pair / name).read_bytes()).hexdigest() for name in weights},
        "files": {"projector/model.safetensors": hashlib.sha256(projector.read_bytes()).hexdigest()},
    }
    (projector.parents[1] / "training.json").write_text(json.dumps(record))
    return projector
