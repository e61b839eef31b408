"""Converted weights: the same numbers under the names that backbones want, read by them as they lie."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPVisionModelWithProjection

from lightning_m2pt.backbones.language_model import load_language_model
from lightning_m2pt.backbones.towers.open_clip_files import load_tower
from lightning_m2pt.main import main
from lightning_m2pt.storage.foreign.written import drafts
from tests.storage.foreign_files import write_clip, write_pickled_shards, write_torchscript
from tests.support.stored_backbone import CONFIG, PROJECTOR, TOWER, WEIGHTS, store_backbone, stored

LINEAR = {"weight": torch.randn(6, 4), "bias": torch.randn(6)}
TWO_LAYERS = {
    "0.weight": torch.randn(6, 4),
    "0.bias": torch.randn(6),
    "2.weight": torch.randn(6, 6),
    "2.bias": torch.randn(6),
}


def equal(one, other) -> bool:
    same = list(one) == list(other) or set(one) == set(other)
    return same and all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)


def converted(*words: object) -> None:
    assert main(["convert", *map(str, words)]) == 0


@pytest.mark.parametrize("prefix", ["model.mm_projector.", "mm_projector.", "module.model.mm_projector."])
@pytest.mark.parametrize(
    "tensors", [LINEAR, TWO_LAYERS, {"weight": LINEAR["weight"]}], ids=["linear", "mlp", "no bias"]
)
def test_projectors_of_llava(tmp_path, prefix, tensors):
    source = tmp_path / "mm_projector.bin"
    halved = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    torch.save({prefix + name: tensor for name, tensor in halved.items()}, source)
    converted(source)
    assert equal(load_file(tmp_path / "projector.safetensors"), halved)
    converted(source, "--output", tmp_path / "elsewhere" / "named.safetensors")
    assert equal(load_file(tmp_path / "elsewhere" / "named.safetensors"), halved)


def test_the_header_names_the_source_and_the_same_command_finds_it_done(tmp_path, capsys):
    source, made = tmp_path / "mm_projector.bin", tmp_path / "projector.safetensors"
    torch.save({f"model.mm_projector.{name}": tensor for name, tensor in LINEAR.items()}, source)
    converted(source)
    with safe_open(made, "pt") as file:
        assert file.metadata()["converted_from"] == "mm_projector.bin"
        assert len(file.metadata()["source_sha256"]) == 64
        assert file.metadata()["format"] == "pt"
    before = made.stat().st_mtime_ns, made.stat().st_ino
    converted(source)
    assert (made.stat().st_mtime_ns, made.stat().st_ino) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mm_projector.bin", "projector.safetensors"]


def test_old_pickles_without_a_zip_file(tmp_path):
    source = tmp_path / "mm_projector.bin"
    torch.save(
        {f"mm_projector.{name}": tensor for name, tensor in LINEAR.items()},
        source,
        _use_new_zipfile_serialization=False,
    )
    converted(source)
    assert equal(load_file(tmp_path / "projector.safetensors"), LINEAR)


@pytest.mark.parametrize("form", ["TorchScript", "pickle", "training", "tower alone"])
def test_open_clip_towers_in_every_container_are_read_by_the_backbone(tmp_path, form):
    """OpenAI's archives have half-precision weights and three numbers among them."""
    backbone = store_backbone(tmp_path / "base")
    tower = {name: tensor.half() for name, tensor in backbone.vision_tower.state_dict().items()}
    whole = {f"visual.{name}": tensor for name, tensor in tower.items()} | {"logit_scale": torch.ones(())}
    source = tmp_path / ("ViT.pt" if form == "TorchScript" else "open_clip_pytorch_model.bin")
    if form == "TorchScript":
        write_torchscript(source, {**whole, "input_resolution": torch.tensor(16), "vocab_size": torch.tensor(9)})
    elif form == "training":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": one for name, one in whole.items()}}, source)
    else:
        torch.save(tower if form == "tower alone" else whole, source)
    converted(source)
    made = tmp_path / "open_clip_model.safetensors"
    expected = whole if form != "tower alone" else {f"visual.{name}": tensor for name, tensor in tower.items()}
    assert equal(load_file(made), expected)
    read = load_tower(made, backbone._open_clip["model_cfg"], torch.float16)
    assert equal(read.state_dict(), tower)


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize("sharded", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["beside", "elsewhere"])
def test_language_models_are_read_where_they_lie(tmp_path, capsys, tied, sharded, elsewhere):
    built = store_backbone(tmp_path / "base", {"tie_word_embeddings": tied}).language_model
    folder = tmp_path / "base" / "language"
    (folder / "model.safetensors").unlink()
    tensors = {**built.state_dict(), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    if sharded:
        write_pickled_shards(folder, tensors, 9)
    else:
        torch.save(tensors, folder / "pytorch_model.bin")
    output = tmp_path / "made" if elsewhere else folder
    (folder / "tokenizer.model").write_bytes(b"pieces")
    for _ in range(2):
        converted(folder, *(["--output", output] if elsewhere else []))
        assert "tokenizer.json is still to come" not in capsys.readouterr().out
    (output / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    converted(folder, *(["--output", output] if elsewhere else []))
    assert ("tokenizer.json is still to come" in capsys.readouterr().out) is not elsewhere
    (tmp_path / "tokenizer.json").rename(output / "tokenizer.json")
    read = load_language_model(output, torch.float32)
    assert equal(read.state_dict(), built.state_dict())
    assert (output / "tokenizer.json").is_file()
    assert not list(output.glob("*.bin*")) or not elsewhere


@pytest.mark.parametrize("kind", ["CLIPModel", "CLIPVisionModel", "CLIPVisionModelWithProjection"])
@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu", "layer_norm_eps": 1e-4}], ids=["quick", "exact"])
def test_a_tower_of_transformers_in_open_clips_layout_and_back(tmp_path, kind, changes):
    as_pickle = not changes
    model = write_clip(tmp_path / "clip", kind, as_pickle, **changes)
    converted(tmp_path / "clip", "--layout", "open_clip", "--output", tmp_path / "open")
    config = json.loads((tmp_path / "open" / "open_clip_config.json").read_text())
    assert config["preprocess_cfg"]["mean"] == [0.5, 0.4, 0.3]
    assert config["model_cfg"]["vision_cfg"]["head_width"] == 8
    tower = load_tower(tmp_path / "open" / "open_clip_model.safetensors", config["model_cfg"], torch.float64)
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    library = model.double()
    vision = library.vision_model if kind == "CLIPModel" else library
    with torch.no_grad():
        expected = vision(pixels, output_hidden_states=True)
        found = tower.forward_intermediates(pixels, indices=[1], output_fmt="NLC", output_extra_tokens=True)
        patches = found["image_intermediates"][0]
    torch.testing.assert_close(patches, expected.hidden_states[-2][:, 1:], rtol=1e-12, atol=1e-12)
    if kind == "CLIPVisionModelWithProjection":
        torch.testing.assert_close(found["image_features"], expected.image_embeds, rtol=1e-12, atol=1e-12)
    if kind == "CLIPVisionModel":
        assert not tower.proj.any()
        assert tower.proj.shape == (32, 1)
        return
    converted(tmp_path / "open", "--layout", "transformers", "--output", tmp_path / "back")
    again, loading = CLIPVisionModelWithProjection.from_pretrained(
        tmp_path / "back", output_loading_info=True, trust_remote_code=False
    )
    assert not any(loading[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    names = again.float().state_dict()
    assert equal(names, {name: library.float().state_dict()[name] for name in names})
    assert again.config.hidden_act == changes.get("hidden_act", "quick_gelu")
    assert again.config.layer_norm_eps == changes.get("layer_norm_eps", 1e-5)
    processor = json.loads((tmp_path / "back" / "preprocessor_config.json").read_text())
    assert {key: processor[key] for key in ("size", "resample", "image_mean", "image_std")} == {
        "size": {"shortest_edge": 16},
        "resample": 3,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
    }


def test_the_configuration_of_an_mlp_whose_ratio_is_no_short_number(tmp_path):
    write_clip(tmp_path / "clip", "CLIPVisionModel", as_pickle=False, intermediate_size=139, hidden_size=36)
    converted(tmp_path / "clip", "--layout", "open_clip", "--output", tmp_path / "open")
    config = json.loads((tmp_path / "open" / "open_clip_config.json").read_text())["model_cfg"]
    tower = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"]).visual
    assert tower.transformer.resblocks[0].mlp.c_fc.out_features == 139


def test_a_backbone_of_pickles_names_the_commands_that_make_it_readable(tmp_path, capsys):
    """The message's own command is given until nothing is missing."""
    backbone = store_backbone(tmp_path)
    tower, projector = load_file(tmp_path / TOWER), load_file(tmp_path / PROJECTOR)
    language = load_file(tmp_path / WEIGHTS)
    for file in (TOWER, PROJECTOR, WEIGHTS):
        (tmp_path / file).unlink()
    torch.save(tower, tmp_path / "vision" / "tower.pt")
    torch.save({f"model.mm_projector.{name}": one for name, one in projector.items()}, tmp_path / "mm_projector.bin")
    torch.save(language, tmp_path / "language" / "pytorch_model.bin")
    for _ in range(3):
        with pytest.raises(Exception, match="m2pt convert") as refusal:
            stored(tmp_path).check_files()
        command = str(refusal.value).partition("`m2pt convert ")[2].partition("`")[0]
        converted(command)
        made = tmp_path / "vision" / "open_clip_model.safetensors"
        if made.is_file():
            made.rename(tmp_path / TOWER)  # the configuration of this test names it so
    read = stored(tmp_path)
    read.load()
    assert equal(read.state_dict(), backbone.state_dict())
    assert Path(tmp_path / CONFIG).is_file()


@pytest.mark.parametrize("name", ["plain.bin", 'a "quoted"\n name with é and \x7f'])
def test_the_same_conversion_gives_the_same_bytes(tmp_path, name):
    """safetensors writes metadata in an order that changes; models are recognised by their files' bytes."""
    origin = {"converted_from": name, **{key: "1" for key in "hgfedcba"}}
    with drafts() as written:
        written.add_tensors(tmp_path / "model.safetensors", LINEAR, origin)
    content = (tmp_path / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"].items()) == [("format", "pt"), *origin.items()]
    assert equal(load_file(tmp_path / "model.safetensors"), LINEAR)
