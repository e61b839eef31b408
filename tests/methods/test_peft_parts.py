"""Parts of a tuner of peft by value: its start, its factors, what is knocked out, and what is said of it."""

from pathlib import Path

import pytest
import torch

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.peft_tuner import PeftTuner, refuse_names_of_nothing
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch


def test_the_seed_alone_decides_the_start_and_draws_nothing_else(tmp_path: Path) -> None:
    backbone, starts = random_backbone(tmp_path), []
    before = torch.random.get_rng_state()
    for seed in (1, 1, 2):
        method = PeftTuner("lora", {"r": 2, "target_modules": ["q_proj"]}, interaction=False)
        method.build(backbone, torch.Generator().manual_seed(seed))
        starts.append(torch.cat([each.detach().flatten() for each in method.named_tensors().values()]))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_of_two_patterns_the_first_counts_as_in_peft(tmp_path: Path) -> None:
    backbone, place = random_backbone(tmp_path), "model.layers.0.self_attn.q_proj"
    for names in (("q_proj", "layers.0.self_attn.q_proj"), ("layers.0.self_attn.q_proj", "q_proj")):
        alphas, ranks = dict(zip(names, (3, 5), strict=True)), dict(zip(names, (1, 4), strict=True))
        method = PeftTuner("lora", {"alpha_pattern": alphas, "rank_pattern": ranks}, interaction=False)
        method.build(backbone, torch.Generator())
        method.attach(backbone)
        layer = backbone.language_model.get_submodule(place)
        assert (layer.r["default"], layer.scaling["default"]) == (1, 3)
        assert method.alpha_of("language_low_rank", place) == 3
        method.detach(backbone)


def test_both_components_are_said_apart_and_dropout_is_the_language_models() -> None:
    method = PeftTuner("lora", {"r": 2, "lora_dropout": 0.1}, {"r": 3})
    said, arguments = method.toggles(), method.adapter_config()
    assert (said["r"], said["vision_r"], said["lora_dropout"], said["vision_lora_dropout"]) == (2, 3, "0.1", "0.0")
    assert (arguments["settings"]["r"], arguments["vision"]["r"]) == (2, 3)  # type: ignore[index]
    assert method.attachment(frozenset()).decoder_dropout is method.dropouts["language"]
    assert method.attachment(frozenset({"vision_low_rank"})).decoder_dropout is method.dropouts["language"]
    assert method.attachment(frozenset({"language_low_rank"})).decoder_dropout is None


def test_only_what_meets_a_zero_may_wait_for_its_gradient(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    for start, waits in ((True, "A"), ("gaussian", "A"), ("orthogonal", ""), (False, "")):
        method = PeftTuner("lora", {"r": 2, "init_lora_weights": start, "target_modules": ["q_proj"]})
        method.build(backbone, torch.Generator())
        ending = f".lora_{waits}.weight"
        assert method.may_start_without_gradient() == {each for each in method.named_tensors() if each.endswith(ending)}


@pytest.mark.parametrize(
    ("tuner", "settings", "waiting"),
    [
        ("loha", {"r": 2}, ["hada_w1_a", "hada_w1_b", "hada_w2_a"]),
        ("loha", {"r": 2, "init_weights": False}, []),
        ("lokr", {"r": 2}, ["lokr_w2_a", "lokr_w2_b"]),
        ("lokr", {"r": 16}, ["lokr_w2"]),
        ("lokr", {"r": 2, "decompose_both": True, "decompose_factor": 8}, ["lokr_w1_b", "lokr_w2"]),
    ],
    ids=str,
)
def test_what_may_wait_is_what_has_no_gradient_at_the_start(
    tmp_path: Path, tuner: str, settings: dict[str, object], waiting: list[str]
) -> None:
    backbone, batch = random_backbone(tmp_path), random_batch()
    method = PeftTuner(tuner, {"target_modules": ["q_proj"], **settings}, interaction=False)
    method.build(backbone, torch.Generator().manual_seed(1))
    method.attach(backbone)
    backbone(batch).hidden_states.square().sum().backward()
    still = {name for name, each in method.named_parameters() if each.grad is None or not each.grad.any()}
    assert {name.rpartition(".")[2] for name in still} == set(waiting)
    assert method.may_start_without_gradient() == still


def test_a_layers_number_is_a_whole_step_of_a_name() -> None:
    settings = {"layers_to_transform": [11]}
    refuse_names_of_nothing(settings, ["layers.11.q_proj"], ["layers.11.q_proj"], "settings")
    with pytest.raises(BadInputError, match=r"in a layer 1\b"):
        refuse_names_of_nothing({"layers_to_transform": [1]}, [], ["layers.11.q_proj"], "settings")


@pytest.mark.parametrize("factor", ["a", "b", "magnitude"])
def test_layers_of_which_a_factor_is_knocked_out_are_the_frozen_ones(tmp_path: Path, factor: str) -> None:
    backbone, batch = random_backbone(tmp_path), random_batch()
    frozen = backbone(batch).hidden_states
    settings = {"r": 2, "use_dora": True, "init_lora_weights": False}
    method = PeftTuner("lora", settings, interaction=False, split_factors=True)
    method.build(backbone, torch.Generator().manual_seed(1))
    method.attach(backbone)
    assert not torch.equal(backbone(batch).hidden_states, frozen)
    method.attach(backbone, frozenset({f"language_low_rank_{factor}"}))
    assert torch.equal(backbone(batch).hidden_states, frozen)
