"""Where layers are shared out, every process reads its rows alone, and all rows together are the base."""

import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lightning_m2pt.backbones.filling import unfilled
from lightning_m2pt.backbones.filling.from_files import FilledFromFiles
from lightning_m2pt.backbones.filling.shares import share_of
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.backbones.weight_files import Portion, Stored, read_portions
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.layer_norm import LayerNormTuning as LayerNorm
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.trained_parameters import trained_parameters
from lightning_m2pt.testing.random_backbone import random_batch
from tests.support.ranks import on_ranks
from tests.support.small_training import loader_of, module_with, one_step, small_trainer
from tests.support.stored_backbone import WEIGHTS, change_tensors, store_backbone, stored


class AtStart(Callback):
    """Keeps the trained tensors as training begins with them."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.tensors = {name: each.detach().clone() for name, each in trained_parameters(pl_module).items()}


def share_out_layers(backbone: FilledFromFiles, ranks: int) -> None:
    """Cuts every layer of the decoder, embedding and head if they are two, and all the rest of it, over all ranks."""
    mesh = init_device_mesh("cpu", (ranks,))
    model = backbone.language_model
    ends = [] if model.config.tie_word_embeddings else [model.model.embed_tokens, model.lm_head]
    for unit in (*model.model.layers, *ends, model):
        fully_shard(unit, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """Returns all rows of a tensor."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def counting(numbers: Counter[str]) -> Any:
    """Returns a reader that counts the numbers it hands out, by whether they are the language model's."""

    def read(stored_tensors: Stored, portions: dict[str, Portion], dtype: torch.dtype) -> Any:
        for name, tensor in read_portions(stored_tensors, portions, dtype):
            numbers["of language" if name.startswith(("model.", "lm_head.")) else "others"] += tensor.numel()
            yield name, tensor

    return read


def loaded_in_shares(plain: OpenClipLlama, folder: Path, ranks: int) -> tuple[list[str], Counter[str]]:
    """Loads what was loaded as a whole so that every rank holds its rows; returns what differs, and numbers read."""
    torch.distributed.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=ranks)
    backbone = with_packed(stored(folder, "bfloat16"), plain.quantization)
    numbers: Counter[str] = Counter()
    unfilled.read_portions = counting(numbers)
    calls = []

    def share_out() -> None:
        calls.append(len(list(backbone.parameters())))
        share_out_layers(backbone, ranks)

    backbone.load_in_shares(share_out)
    backbone.load_in_shares(share_out)
    assert len(calls) == 1
    expected, held = dict(plain.named_parameters()), dict(backbone.named_parameters())
    assert held.keys() == expected.keys()
    together = {name: whole(each) for name, each in held.items()}
    differs = [name for name, each in expected.items() if together[name].dtype != each.dtype]
    differs += [name for name, each in expected.items() if not torch.equal(together[name], each)]
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        if not torch.equal(backbone.language_model(tokens).logits, plain.language_model(tokens).logits):
            differs.append("logits")
    ends = [
        (each.language_model.lm_head.weight, each.language_model.model.embed_tokens.weight)
        for each in (backbone, plain)
    ]
    if len({head is embedding for head, embedding in ends}) > 1:
        differs.append("whether the head is tied")
    return differs, numbers


def with_packed(backbone: OpenClipLlama, quantization: str | None) -> OpenClipLlama:
    """Lets a backbone pack the layers of its decoder."""
    backbone.quantise_decoder(quantization)  # type: ignore[arg-type]
    return backbone


@pytest.mark.parametrize(("is_tied", "quantization"), [(False, None), (True, None), (False, "int8")])
def test_all_shares_together_are_the_base(tmp_path: Path, is_tied: bool, quantization: str | None) -> None:
    store_backbone(tmp_path / "b", {"tie_word_embeddings": is_tied})
    plain = with_packed(stored(tmp_path / "b", "bfloat16"), quantization)
    plain.load()
    of_language = [each for name, each in plain.named_parameters() if name.startswith("language_model.")]
    number = sum(each.numel() for each in of_language)
    results = on_ranks(3, loaded_in_shares, plain, tmp_path / "b", 3)
    assert [differs for differs, _ in results] == [[], [], []]
    read = [numbers["of language"] for _, numbers in results]
    if quantization is None:
        assert sum(read) == number
        assert max(read) < 0.42 * number  # rows do not divide by three everywhere: one more of some tensors


def refused(folder: Path, ranks: int) -> str:
    """Returns what a rank says that is to read a share of a broken base; empty if nothing."""
    torch.distributed.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=ranks)
    backbone = stored(folder)
    try:
        backbone.load_in_shares(lambda: share_out_layers(backbone, ranks))
    except BadInputError as error:
        return str(error)
    return ""


def test_the_share_that_holds_it_refuses_what_is_not_finite(tmp_path: Path) -> None:
    store_backbone(tmp_path / "b")
    name = "model.layers.1.mlp.up_proj.weight"
    change_tensors(WEIGHTS, lambda tensors: tensors[name].view(-1)[-1:].fill_(float("nan")) and None)(tmp_path / "b")
    first, last = on_ranks(2, refused, tmp_path / "b", 2)
    assert first == ""
    assert f"NaN or infinity in {name}" in last


def test_a_head_that_is_not_the_embedding_is_refused_though_tied(tmp_path: Path) -> None:
    built = store_backbone(tmp_path / "b", {"tie_word_embeddings": True})
    head = built.language_model.lm_head.weight.detach().clone()
    change_tensors(WEIGHTS, lambda tensors: tensors | {"lm_head.weight": head})(tmp_path / "b")
    stored(tmp_path / "b").load()
    head[-1, -1] += 1
    change_tensors(WEIGHTS, lambda tensors: tensors | {"lm_head.weight": head})(tmp_path / "b")
    with pytest.raises(BadInputError, match=r"lm_head.weight is not model.embed_tokens.weight"):
        stored(tmp_path / "b").load()


def test_tensors_go_to_the_device_that_is_torchs_default(tmp_path: Path) -> None:
    store_backbone(tmp_path / "b")
    with torch.device("cpu", 0):
        backbone = stored(tmp_path / "b")
        backbone.load()
    assert {str(each.device) for each in (*backbone.parameters(), *backbone.buffers())} == {"cpu"}


WITHOUT_PEFT = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "peft":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from pathlib import Path
import lightning_m2pt
import torch
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.tuning.module import TuningModule
from tests.support.stored_backbone import stored
with torch.device("cpu", 0):
    TuningModule(stored(Path(sys.argv[1])), M2PT(2, 2)).configure_model()
assert "peft" not in sys.modules
"""


def test_a_base_loads_under_a_device_where_peft_is_not_installed(tmp_path: Path) -> None:
    """As Lightning loads it, with what an installation without extras has."""
    store_backbone(tmp_path / "b")
    words = [sys.executable, "-c", WITHOUT_PEFT, str(tmp_path / "b")]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr


def test_what_is_cut_in_another_way_is_not_read(tmp_path: Path) -> None:
    def columns(ranks: int) -> str:
        from torch.distributed.tensor import Shard, distribute_tensor

        torch.distributed.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=ranks)
        mesh = init_device_mesh("cpu", (ranks,))
        cut = nn.Parameter(distribute_tensor(torch.zeros(4, 4), mesh, [Shard(1)]))
        with pytest.raises(ValueError, match="only rows of one mesh dimension"):
            share_of(cut)
        return "refused"

    assert on_ranks(1, columns, 1) == ["refused"]


def test_ddp_sends_what_is_trained_and_nothing_else(tmp_path: Path) -> None:
    """Neither the base at the start nor its tables before every pass; what is trained comes from the first rank."""

    def sent() -> tuple[int, int, bool]:
        module = module_with(tmp_path / os.environ["RANK"], M2PT(2, 2))
        trained = {name: each for name, each in module.named_parameters() if each.requires_grad}
        with torch.no_grad():
            for each in trained.values():
                each.add_(float(os.environ["RANK"]))
        beginning = {name: each.detach().clone() for name, each in trained.items()}
        numbers: list[int] = []
        broadcast = torch.distributed._broadcast_coalesced

        def counted(group: Any, tensors: list[Tensor], *given: Any) -> None:
            numbers.extend(each.numel() for each in tensors)
            broadcast(group, tensors, *given)

        torch.distributed._broadcast_coalesced = counted
        torch.nn.parallel.distributed._broadcast_coalesced = counted
        stop = AtStart()
        trainer = small_trainer(stop, strategy=DDPStrategy(process_group_backend="gloo"), devices=2, max_steps=1)
        trainer.fit(module, loader_of(one_step([random_batch()])))
        is_first = os.environ["RANK"] == "0"
        moved = all(torch.equal(each, stop.tensors[name]) for name, each in beginning.items())
        return sum(numbers), sum(each.numel() for each in trained.values()), moved == is_first

    for rank in ("0", "1"):
        (tmp_path / rank).mkdir()
    for numbers, trained, is_as_the_first in on_ranks(2, sent):
        assert numbers == trained
        assert is_as_the_first


def test_methods_that_begin_with_frozen_tensors_copy_all_their_rows(tmp_path: Path) -> None:
    """A trained head, trained norms and prompts from the vocabulary, of a base whose rows are shared out."""
    store_backbone(tmp_path / "b")
    methods = [M2PT(2, 2, init="vocabulary", lm_head=True), LayerNorm()]

    def beginnings(ranks: int) -> list[dict[str, Tensor]]:
        torch.distributed.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=ranks)
        made = []
        for method in methods:
            backbone = stored(tmp_path / "b", "bfloat16")
            state = torch.get_rng_state()
            if ranks > 1:
                backbone.load_in_shares(partial(share_out_layers, backbone, ranks))
            else:
                backbone.load()
            method.build(backbone, torch.Generator().manual_seed(3))
            assert torch.equal(torch.get_rng_state(), state)
            made.append({name: each.detach().numpy() for name, each in method.named_tensors().items()})
        return made

    [alone] = on_ranks(1, beginnings, 1)
    for shared in on_ranks(2, beginnings, 2):
        for ours, theirs in zip(shared, alone, strict=True):
            assert ours.keys() == theirs.keys()
            assert all(ours[name].dtype == theirs[name].dtype for name in theirs)
            assert all((ours[name] == theirs[name]).all() for name in theirs)
