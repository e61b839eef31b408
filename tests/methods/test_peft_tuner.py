"""Tuners of peft as methods: stock peft's numbers, our LoRA's, starts, parts and settings."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments.configuration.cli import parse_experiment
from lightning_m2pt.errors import BadInputError, EnvironmentFailure
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.peft_tuner import PeftTuner, follow
from lightning_m2pt.parallel.units import refuse_unless_shardable, refuse_untried_under_zero
from lightning_m2pt.system.hidden_modules import hidden_module
from lightning_m2pt.testing.method_contract import method_contract
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.memory_estimate import MicroBatchSize
from lightning_m2pt.tuning.module import build_on_meta
from lightning_m2pt.tuning.module_memory import estimate_of
from lightning_m2pt.tuning.optimizer import AdamW
from tests.support.models.stock_process import GUARD
from tests.support.quantised_backbone import quantised
from tests.support.ranks import on_ranks
from tests.support.runs.whole_trainings import tune
from tests.support.small_experiment import small_words
from tests.support.stored_backbone import store_backbone

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OF_TUNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {"r": 3, "lora_alpha": 5, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 7}}),
    "rslora": ("lora", {"r": 3, "lora_alpha": 5, "use_rslora": True}),
    "dora": ("lora", {"r": 3, "use_dora": True}),
    "pissa": ("lora", {"r": 3, "init_lora_weights": "pissa"}),
    "olora": ("lora", {"r": 3, "lora_alpha": 4, "init_lora_weights": "olora"}),
    "ia3": ("ia3", {"feedforward_modules": ["down_proj"]}),
    "loha": ("loha", {"r": 2, "alpha": 3}),
    "lokr": ("lokr", {"r": 2, "decompose_both": True}),
    "oft": ("oft", {"oft_block_size": 4}),
    "hra": ("hra", {"r": 2}),
}
FROZEN_START = ["lora", "rslora", "dora", "ia3", "loha", "lokr", "oft"]

PROGRAM = """
import importlib.util, json, sys

spec = importlib.util.spec_from_file_location("torchvision_guard", sys.argv[2])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
sys.modules["bitsandbytes"] = None
import torch
from peft import PeftType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

for job in json.load(open(sys.argv[1])):
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(job["tuner"].upper())](**job["settings"])
    model = get_peft_model(model, config)
    trained = {
        name.removeprefix("base_model.model.").replace(".default", ""): tensor
        for name, tensor in model.named_parameters()
        if tensor.requires_grad
    }
    given = load_file(job["given"])
    starts = {f"start {name}": tensor.detach().clone() for name, tensor in trained.items()}
    model.double().eval()
    assert set(given) - {"rows"} == set(trained), set(given) ^ set(trained)
    with torch.no_grad():
        for name, tensor in trained.items():
            tensor.add_(given[name])
    logits = model(inputs_embeds=given["rows"]).logits
    logits.square().mean().backward()
    found = {f"gradient {name}": tensor.grad for name, tensor in trained.items()}
    save_file({key: each.contiguous() for key, each in {**found, **starts, "logits": logits}.items()}, job["found"])
assert "lightning_m2pt" not in sys.modules
"""


def in_part(method: PeftTuner) -> dict[str, Tensor]:
    """Returns the language model's tensors by the names they have in it."""
    names = {name: tensor for name, tensor in method.named_tensors().items() if name.startswith("language")}
    return {name.partition(".")[2]: tensor for name, tensor in names.items()}


def test_logits_and_gradients_are_those_of_stock_peft(tmp_path: Path) -> None:
    """In float64, in a process of its own; a start that is drawn is handed over, one from the weights is peft's."""
    backbone = random_backbone(tmp_path)
    backbone.language_model.save_pretrained(tmp_path / "model")
    rows = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    jobs, added = [], {}
    for name, (tuner, settings) in OF_TUNERS.items():
        method, generator = PeftTuner(tuner, settings, interaction=False), torch.Generator().manual_seed(2)
        method.build(backbone, torch.Generator().manual_seed(1))
        added[name] = {
            key: 0.1 * torch.randn(each.shape, generator=generator, dtype=torch.float64)
            for key, each in in_part(method).items()
        }
        save_file({**added[name], "rows": rows}, tmp_path / f"{name}.given")
        jobs.append(
            {
                "model": str(tmp_path / "model"),
                "tuner": tuner,
                "settings": {**settings, "target_modules": ALL},
                "given": str(tmp_path / f"{name}.given"),
                "found": str(tmp_path / f"{name}.found"),
            }
        )
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "jobs.json"), str(GUARD)]
    environment = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(words, env=environment, timeout=300, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in OF_TUNERS:
        found = load_file(tmp_path / f"{name}.found")
        expected = from_starts(tmp_path, name, added[name], rows, found)
        for key, one in expected.items():
            torch.testing.assert_close(one, found[key], rtol=1e-10, atol=1e-10, msg=f"{name}, {key}")


def from_starts(
    folder: Path, name: str, added: dict[str, Tensor], rows: Tensor, found: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Returns our logits and gradients from stock peft's start."""
    backbone, (tuner, settings) = random_backbone(folder), OF_TUNERS[name]
    method = PeftTuner(tuner, settings, interaction=False)
    method.build(backbone, torch.Generator().manual_seed(1))
    method.attach(backbone)
    tensors = in_part(method)
    if settings.get("init_lora_weights") in ("pissa", "olora"):
        assert all(torch.equal(tensor, found[f"start {key}"]) for key, tensor in tensors.items())
    backbone.double(), method.double()
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor.copy_(found[f"start {key}"].double() + added[key])
    logits = backbone.language_model(inputs_embeds=rows).logits
    logits.square().mean().backward()
    gradients = {f"gradient {key}": tensor.grad for key, tensor in tensors.items() if tensor.grad is not None}
    assert len(gradients) == len(tensors)
    return {"logits": logits.detach(), **gradients}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OF_TUNERS if name not in ("dora", "pissa")])
def test_every_tuner_keeps_the_contract(name: str) -> None:
    tuner, settings = OF_TUNERS[name]
    method_contract(lambda: PeftTuner(tuner, settings), starts_as_frozen=name in FROZEN_START)


def test_it_is_our_lora_step_by_step(tmp_path: Path) -> None:
    """From the same numbers, five steps: the same losses to the last bit."""
    losses: list[list[float]] = []
    start: dict[str, Tensor] = {}
    first = Lora(3, 5.0, dropout=0.0, vision=True)
    for method in (first, PeftTuner("lora", {"r": 3, "lora_alpha": 5}, {"r": 3, "lora_alpha": 5})):
        backbone = random_backbone(tmp_path)
        method.build(backbone, torch.Generator().manual_seed(1))
        if method is not first:
            method.load_state_dict({name: each for name, each in start.items() if name in method.state_dict()})
        start = {name: each.detach().clone() for name, each in method.state_dict().items()}
        method.attach(backbone)
        optimizer = AdamW(learning_rate=1e-3).build(method.parts())
        losses.append([])
        for step in range(5):
            optimizer.zero_grad()
            loss = supervised_rows(backbone, random_batch(seed=step)).losses.sum()
            loss.backward()
            optimizer.step()
            losses[-1].append(float(loss.detach()))
    assert list(first.named_tensors()) == list(method.named_tensors())
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 5


def test_dora_starts_as_the_frozen_model_on_bfloat16(tmp_path: Path) -> None:
    """Lengths that were rounded as the weights are would not be the lengths of these weights."""
    backbone = random_backbone(tmp_path, torch.bfloat16)
    linear = backbone.language_model.model.layers[0].mlp.up_proj
    method = PeftTuner("lora", {"r": 2, "use_dora": True}, interaction=False)
    method.build(backbone, torch.Generator().manual_seed(1))
    lengths = method.named_tensors()["language_low_rank.model.layers.0.mlp.up_proj.lora_magnitude_vector.weight"]
    torch.testing.assert_close(lengths.detach(), linear.weight.float().norm(dim=1), rtol=1e-6, atol=0)
    batch = random_batch(dtype=torch.bfloat16)
    frozen = backbone(batch).hidden_states
    method.attach(backbone)
    assert torch.equal(backbone(batch).hidden_states, frozen)


def test_pissa_holds_the_principal_part_and_the_base_the_rest(tmp_path: Path) -> None:
    backbone, place = random_backbone(tmp_path), "model.layers.1.self_attn.q_proj"
    linear = backbone.language_model.get_submodule(place)
    whole = linear.weight.detach().clone()
    method = PeftTuner("lora", {"r": 4, "lora_alpha": 6, "init_lora_weights": "pissa"})
    method.build(backbone, torch.Generator().manual_seed(1))
    assert torch.equal(linear.weight, whole)
    tensors = method.named_tensors()
    a, b = (tensors[f"language_low_rank.{place}.lora_{factor}.weight"].detach() for factor in "AB")
    left, values, right = torch.linalg.svd(whole.double())
    principal = left[:, :4] * values[:4] @ right[:4]
    torch.testing.assert_close(6 / 4 * (b.double() @ a.double()), principal, rtol=0, atol=1e-5)
    method.attach(backbone)
    rest = backbone.language_model.get_submodule(place).base_layer.weight
    torch.testing.assert_close(rest.double(), whole.double() - principal, rtol=0, atol=1e-5)
    assert not rest.requires_grad
    method.detach(backbone)
    assert backbone.language_model.get_submodule(place) is linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_pissa_leaves_of_a_layer_has_its_bias_and_its_type(tmp_path: Path, dtype: torch.dtype) -> None:
    backbone = random_backbone(tmp_path, dtype)
    frozen = backbone(random_batch(dtype=dtype)).hidden_states
    method = PeftTuner("lora", None, {"r": 4, "init_lora_weights": "pissa"}, interaction=False)
    method.build(backbone, torch.Generator().manual_seed(1))
    method.attach(backbone)
    layer = backbone.vision_tower.get_submodule("transformer.resblocks.0.mlp.c_fc")
    assert layer.base_layer.weight.dtype == layer.base_layer.bias.dtype == dtype
    assert layer.base_layer.bias.any()
    assert not layer.training
    difference = (backbone(random_batch(dtype=dtype)).hidden_states - frozen).detach().abs().max()
    assert float(difference) < (1e-4 if dtype == torch.float32 else 0.2)


def test_what_the_base_leaves_over_is_counted_as_memory(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path, torch.bfloat16)
    sizes = {"q_proj": 32 * 32, "down_proj": 32 * 48}
    method = PeftTuner("lora", {"r": 2, "init_lora_weights": "pissa", "target_modules": list(sizes)})
    method.build(backbone, torch.Generator())
    assert method.frozen_bytes() == 3 * sum(sizes.values()) * 2
    both = Combined([method, M2PT(0, 3, interaction=False)])
    assert (both.frozen_bytes(), both.kept_factor()) == (method.frozen_bytes(), 1.0)
    plain = PeftTuner("lora", {"r": 2})
    plain.build(backbone, torch.Generator())
    assert plain.frozen_bytes() == 0


def test_what_stands_beside_trained_tensors_follows_them_to_another_device(tmp_path: Path) -> None:
    backbone, (tuner, settings) = random_backbone(tmp_path), OF_TUNERS["pissa"]
    method = PeftTuner(tuner, settings)
    method.build(backbone, torch.Generator())
    method.attach(backbone)
    layer = backbone.language_model.model.layers[0].mlp.up_proj
    layer.lora_A.to("meta"), layer.lora_B.to("meta")  # a device like any other
    assert layer.base_layer.weight.device.type == "cpu"
    follow(layer)
    assert layer.base_layer.weight.device.type == "meta"


def test_the_estimate_of_memory_has_both() -> None:
    """What the base leaves over is weight, and what DoRA keeps beside LoRA is activation."""
    found, beside = {}, {}
    for name in ("rslora", "dora", "pissa"):
        module = parse_experiment(["--config", f"experiments/{name}_base.yaml"]).model
        build_on_meta(module)
        found[name], beside[name] = estimate_of(module, MicroBatchSize(4, 30, 32)), module.method.frozen_bytes()
    assert found["pissa"].weights - found["rslora"].weights == beside["pissa"] > beside["rslora"] == 0
    assert found["dora"].activations == round(1.35 * found["rslora"].activations)
    assert found["dora"].recomputed_activations == round(1.35 * found["rslora"].recomputed_activations)


def test_factors_have_rates_of_their_own() -> None:
    method = parse_experiment(["--config", "experiments/lora_plus_base.yaml"]).model
    method.backbone.build_on_meta()
    method.method.build(method.backbone, torch.Generator())
    groups = method.optimizer_settings.build(method.method.parts()).param_groups
    assert {group["name"]: group["lr"] for group in groups} == {
        "language_low_rank_a": 5e-4,
        "language_low_rank_b": 8e-3,
        "interaction": 1e-3,
    }
    names = {name for name, _ in method.method.parts()["language_low_rank_b"]}
    assert len(names) == 7 * 4
    assert all(name.endswith("lora_B.weight") for name in names)


@pytest.mark.parametrize(
    ("tuner", "settings", "where"),
    [
        ("lora", {"target_modules": ["q_proj", "qkv"]}, "settings.target_modules"),
        ("lora", {"target_modules": ["lm_head"]}, "settings.target_modules"),
        ("lora", {"exclude_modules": ["lm_head"]}, "settings.exclude_modules"),
        ("lora", {"target_modules": ["q_proj"], "exclude_modules": ["self_attn.q_proj"]}, "settings.target_modules"),
        ("lora", {"target_modules": ["q_proj"], "rank_pattern": {"v_proj": 2}}, "settings.rank_pattern"),
        ("lora", {"alpha_pattern": {"layers.7.mlp.up_proj": 2.0}}, "settings.alpha_pattern"),
        ("lora", {"target_modules": ["q_proj"], "alpha_pattern": {"v_proj": 2.0}}, "settings.alpha_pattern"),
        ("lora", {"target_modules": ["q_proj"], "layers_to_transform": [1, 3]}, "settings.layers_to_transform"),
        ("ia3", {"target_modules": ["q_proj"], "feedforward_modules": ["up_proj"]}, "settings.feedforward_modules"),
        ("oft", {"oft_block_size": 5}, "settings"),
        ("oft", {"oft_block_size": 1}, "settings"),
        ("oft", {"r": 32, "oft_block_size": 0, "target_modules": ["q_proj"]}, "settings"),
        ("lora", {"r": 40, "init_lora_weights": "pissa"}, "settings"),
    ],
    ids=str,
)
def test_what_fits_no_layer_is_refused_before_weights_are_there(
    tmp_path: Path, tuner: str, settings: dict[str, Any], where: str
) -> None:
    backbone = random_backbone(tmp_path)
    backbone.build_on_meta()
    with pytest.raises(BadInputError) as refused:
        PeftTuner(tuner, settings).build(backbone, torch.Generator())
    assert refused.value.where == f"model.method.{where}"


def test_chosen_layers_are_wrapped_and_no_others(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    settings = {"target_modules": ["q_proj", "mlp.up_proj"], "layers_to_transform": [0, 2]}
    method = PeftTuner("lora", settings, {"exclude_modules": ["c_proj"]})
    method.build(backbone, torch.Generator())
    wrapped = {name.rpartition(".lora_")[0] for name in method.named_tensors() if ".lora_" in name}
    assert wrapped == {
        *(
            f"language_low_rank.model.layers.{layer}.{name}"
            for layer in (0, 2)
            for name in ("self_attn.q_proj", "mlp.up_proj")
        ),
        *(f"vision_low_rank.transformer.resblocks.{layer}.mlp.c_fc" for layer in range(3)),
    }


def test_chosen_layers_are_all_that_is_wrapped_where_no_module_is_named(tmp_path: Path) -> None:
    method = PeftTuner("lora", {"layers_to_transform": [1]})
    method.build(random_backbone(tmp_path), torch.Generator())
    wrapped = {name.rpartition(".lora_")[0] for name in method.named_tensors() if ".lora_" in name}
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    names += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert wrapped == {f"language_low_rank.model.layers.1.{name}" for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dora", "pissa"])
def test_a_step_is_the_same_however_it_is_split(tmp_path: Path, name: str) -> None:
    """1 x 8 = 4 x 2 = 2 ranks x 4; lengths and principal parts are numbers of up to ten, in float32."""
    rates = json.dumps({"language_low_rank": 1.5e-4, "interaction": 5e-5})
    words = [*small_words(tmp_path, f"experiments/{name}_base.yaml", steps=5), "--model.backbone.dtype=float64"]
    words += [f"--model.optimizer.learning_rate={rates}"]
    whole = tune(words, tmp_path / "whole")
    split = tune([*words, "--data.micro_batch_size=2"], tmp_path / "split")
    ranks = [*words, "--data.micro_batch_size=4", "--trainer.devices=2", "--trainer.strategy=ddp"]
    first, second = on_ranks(2, tune, ranks, tmp_path / "ranks")
    for key, tensor in whole.items():
        torch.testing.assert_close(split[key], tensor, rtol=5e-7, atol=5e-7, msg=lambda told, k=key: f"{k}: {told}")
        torch.testing.assert_close(first[key], tensor, rtol=5e-7, atol=5e-7, msg=lambda told, k=key: f"{k}: {told}")
        assert torch.equal(first[key], second[key])


@pytest.mark.slow
def test_the_contract_beside_prompts_of_both_sides() -> None:
    method_contract(lambda: Combined([PeftTuner("lora", {"r": 2, "use_dora": True}, interaction=False), M2PT(5, 4)]))


def test_packed_weights_are_no_start_of_pissa(tmp_path: Path) -> None:
    store_backbone(tmp_path / "b")
    shape = quantised(tmp_path / "b", "int8", load=False).shape
    with pytest.raises(BadInputError, match="packed weights are not packed again"):
        PeftTuner("lora", {"init_lora_weights": "pissa"}).check(shape)
    PeftTuner("lora", {}, {"init_lora_weights": "pissa"}).check(shape)


def test_without_peft_the_method_is_refused(tmp_path: Path) -> None:
    shape = random_backbone(tmp_path).shape
    with hidden_module("peft"), pytest.raises(EnvironmentFailure, match="peft cannot be imported"):
        PeftTuner("lora", {}).check(shape)


def test_shared_out_weights_are_refused(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    for method in (PeftTuner("lora", {}), Combined([PeftTuner("lora", {}, interaction=False), M2PT(2, 2)])):
        for refuse in (refuse_unless_shardable, refuse_untried_under_zero):
            with pytest.raises(BadInputError, match="a tuner of peft on weights that are shared out"):
                refuse(backbone, method)
