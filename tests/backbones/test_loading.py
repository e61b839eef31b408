"""A backbone's tensors as they come out of its files: to the last bit, all finite, and independent of the files."""

import shutil
from pathlib import Path

import pytest
import torch

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.testing.random_backbone import random_batch
from tests.support.stored_backbone import PROJECTOR, TOWER, WEIGHTS, change_tensors, put, shard, store_backbone, stored


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone") / "whole"
    store_backbone(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("file", "tensor"),
    [(WEIGHTS, "model.layers.2.mlp.up_proj.weight"), (TOWER, "visual.conv1.weight"), (PROJECTOR, "bias")],
)
@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_tensor_that_is_not_finite_is_refused(whole, tmp_path, file, tensor, number, dtype):
    folder = tmp_path / "broken"
    shutil.copytree(whole, folder)

    def spoil(tensors):
        tensors[tensor].view(-1)[3] = float(number)

    change_tensors(file, spoil)(folder)
    with pytest.raises(BadInputError, match=f"NaN or infinity in {tensor} in .*{file}"):
        stored(folder, dtype).load()


def test_a_number_that_the_type_cannot_hold_is_refused(whole, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(whole, folder)
    change_tensors(PROJECTOR, lambda tensors: {**tensors, "bias": tensors["bias"].double().fill_(1e300)})(folder)
    stored(folder, "float64").load()
    with pytest.raises(BadInputError, match="NaN or infinity in bias"):
        stored(folder, "float32").load()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("form", ["single", "shards", "tied", "tied with its head", "old tables", "half precision"])
def test_a_whole_folder_is_loaded_to_the_last_bit(tmp_path, form, dtype):
    language = {"tie_word_embeddings": form.startswith("tied"), "rope_theta": 500.0}
    built = store_backbone(tmp_path / "b", language)
    if form == "shards":
        shard(tmp_path / "b")
    if form == "tied with its head":
        head = {"lm_head.weight": built.language_model.lm_head.weight.detach().clone()}
        change_tensors(WEIGHTS, lambda tensors: tensors | head)(tmp_path / "b")
    if form == "old tables":
        name = "model.layers.0.self_attn.rotary_emb.inv_freq"
        change_tensors(WEIGHTS, put(name, lambda _: torch.ones(4)))(tmp_path / "b")
    if form == "half precision":
        change_tensors(WEIGHTS, lambda tensors: {name: one.half() for name, one in tensors.items()})(tmp_path / "b")
        built.language_model.half().float()
    loaded = stored(tmp_path / "b", dtype)
    state = torch.get_rng_state()
    loaded.load()
    assert torch.equal(state, torch.get_rng_state())
    own = dict(built.to(loaded.dtype).named_parameters())
    assert own.keys() == dict(loaded.named_parameters()).keys()
    for name, parameter in loaded.named_parameters():
        assert parameter.dtype == loaded.dtype
        assert torch.equal(parameter, own[name]), name
    table = loaded.language_model.model.rotary_emb.inv_freq
    assert table.dtype == torch.float32
    torch.testing.assert_close(table, 500.0 ** -(torch.arange(0, 8, 2) / 8))
    head, embedding = loaded.language_model.lm_head.weight, loaded.language_model.model.embed_tokens.weight
    assert (head is embedding) == form.startswith("tied")
    loaded(random_batch(dtype=loaded.dtype))


def test_a_tied_head_of_its_own_is_refused(tmp_path):
    store_backbone(tmp_path / "b", {"tie_word_embeddings": True})
    change_tensors(WEIGHTS, put("lm_head.weight", lambda _: torch.ones(50, 32)))(tmp_path / "b")
    with pytest.raises(BadInputError, match=r"lm_head\.weight is not model\.embed_tokens\.weight"):
        stored(tmp_path / "b").load()


def test_weights_do_not_change_with_their_files(whole, tmp_path):
    """What safetensors hands out is the mapped file: written over in place, it would change a running training."""
    folder = tmp_path / "copied"
    shutil.copytree(whole, folder)
    loaded = stored(folder)
    loaded.load()
    before = {name: parameter.detach().clone() for name, parameter in loaded.named_parameters()}
    for file in (WEIGHTS, TOWER, PROJECTOR):
        size = (folder / file).stat().st_size
        with (folder / file).open("r+b") as stream:
            stream.seek(size // 2)
            stream.write(bytes(size - size // 2))
    assert all(torch.equal(parameter, before[name]) for name, parameter in loaded.named_parameters())
