"""Full fine-tuning: the copies stand in for exactly the used tensors, and nothing of them is left behind."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from experiments.commands.params import count
from experiments.configuration.cli import parse_experiment
from experiments.runs.loading import experiment_of_run, load_run
from experiments.runs.prepare import check_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.trained_parameters import freeze_all_but_declared, trained_parameters
from lightning_m2pt.storage.adapter_folder import declared_tensors
from lightning_m2pt.storage.checkpoint import latest_checkpoint, read_checkpoint, step_of
from lightning_m2pt.system.tensor_hashes import hash_tensors
from lightning_m2pt.testing.random_backbone import VISION_LAYERS, random_backbone, random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.module import TuningModule
from tests.support.small_experiment import fitted, small_words
from tests.tuning.test_training import StopAtStep

FULL = "experiments/full.yaml"
PARTS = ["vision", "interaction", "language"]
WORD_EMBEDDING = "language.model.embed_tokens.weight"


def attached(backbone: OpenClipLlama, **arguments: bool) -> Full:
    """Returns a built and attached method whose copies have moved away from the pretrained tensors."""
    method = Full(**arguments)
    method.build(backbone, torch.Generator())
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1)
    method.attach(backbone)
    return method


def outputs(backbone: OpenClipLlama) -> Tensor:
    with torch.no_grad():
        batch = random_batch()
        return backbone.logits(backbone(batch).hidden_states)


def test_used_tensors_are_exactly_those_a_backward_pass_reaches(tmp_path):
    backbone = random_backbone(tmp_path)
    supervised_rows(backbone, random_batch()).losses.sum().backward()
    reached = {name for name, parameter in backbone.named_parameters() if parameter.grad is not None}
    used = backbone.used_tensors()
    assert list(used) == PARTS
    assert {place for places in used.values() for place in places} == reached
    unused = {name for name, _ in backbone.named_parameters()} - reached
    assert {"vision_tower.proj", "vision_tower.ln_post.weight"} <= unused
    assert any(name.startswith(f"vision_tower.transformer.resblocks.{VISION_LAYERS - 1}.") for name in unused)


def test_detaching_gives_the_very_backbone_back(tmp_path):
    backbone = random_backbone(tmp_path)
    weights, tensors, logits = hash_tensors(backbone.state_dict()), list(backbone.parameters()), outputs(backbone)
    method = attached(backbone)
    assert not torch.equal(outputs(backbone), logits)
    greedy_answers(backbone, random_batch(), max_new_tokens=3, end_token_id=0)
    method.detach(backbone)
    assert hash_tensors(backbone.state_dict()) == weights
    assert all(one is other for one, other in zip(backbone.parameters(), tensors, strict=True))
    assert torch.equal(outputs(backbone), logits)


def test_untrained_copies_change_nothing(tmp_path):
    backbone = random_backbone(tmp_path)
    logits, method = outputs(backbone), Full()
    method.build(backbone, torch.Generator())
    method.attach(backbone)
    assert torch.equal(outputs(backbone), logits)
    assert method.added_parameters() == dict.fromkeys(PARTS, 0)


@pytest.mark.parametrize("part", PARTS)
def test_knocking_a_part_out_equals_never_having_trained_it(tmp_path, part):
    backbone = random_backbone(tmp_path)
    others = attached(backbone, **{name: name != part for name in PARTS})
    assert others.part_names() == [name for name in PARTS if name != part]
    expected = outputs(backbone)
    others.detach(backbone)
    method = attached(backbone)
    method.attach(backbone, without={part})
    assert torch.equal(outputs(backbone), expected)
    method.attach(backbone)
    assert not torch.equal(outputs(backbone), expected)
    with pytest.raises(BadInputError, match="no part 'projector'"):
        method.attach(backbone, without={"projector"})


def test_tied_weights_stay_tied(tmp_path):
    backbone = random_backbone(tmp_path)
    language_model = backbone.language_model
    language_model.lm_head.weight = language_model.model.embed_tokens.weight
    method = attached(backbone)
    assert backbone.pretrained_lm_head().weight is backbone.token_embedding().weight
    assert backbone.token_embedding().weight is method.get_parameter(WORD_EMBEDDING)
    names = [name for name, _ in method.parts()["language"]]
    assert WORD_EMBEDDING in names
    assert "language.lm_head.weight" not in names
    method.detach(backbone)
    assert language_model.lm_head.weight is language_model.model.embed_tokens.weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_copies_are_float32_whatever_the_frozen_type(tmp_path, dtype):
    backbone = random_backbone(tmp_path, dtype)
    weights = hash_tensors(backbone.state_dict())
    for arguments in ({}, {"vision": False}, {"interaction": False}, {"language": False}):
        method = attached(backbone, **arguments)
        assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}
        supervised_rows(backbone, random_batch(dtype=dtype)).losses.sum().backward()
        assert all(parameter.grad is not None for parameter in method.parameters())
        greedy_answers(backbone, random_batch(dtype=dtype), max_new_tokens=3, end_token_id=0)
        method.detach(backbone)
    assert hash_tensors(backbone.state_dict()) == weights


def test_names_are_the_methods_attached_or_not(tmp_path):
    backbone, method = random_backbone(tmp_path), Full()
    method.build(backbone, torch.Generator())
    module = TuningModule(backbone, method)
    freeze_all_but_declared(module, method)
    names = [f"method.{name}" for tensors in method.parts().values() for name, _ in tensors]
    assert list(trained_parameters(module)) == names
    method.attach(backbone)
    assert list(trained_parameters(module)) == names
    assert set(names) <= set(module.state_dict())
    assert set(declared_tensors(method)) == {name.removeprefix("method.") for name in names}


def test_only_words_of_the_first_step_have_a_gradient_and_that_is_declared(tmp_path):
    backbone = random_backbone(tmp_path)
    method, batch = attached(backbone), random_batch()
    assert method.may_start_without_gradient() == {WORD_EMBEDDING}
    supervised_rows(backbone, batch).losses.sum().backward()
    moving = {name for name, parameter in method.named_parameters() if every_row_moves(parameter)}
    assert set(dict(method.named_parameters())) - moving == {WORD_EMBEDDING}
    gradient = method.get_parameter(WORD_EMBEDDING).grad
    occurring = set(batch.input_ids[batch.input_ids >= 0].tolist())
    moved = set(gradient.ne(0).any(dim=1).nonzero().flatten().tolist())
    assert moved
    assert moved <= occurring


def every_row_moves(parameter: nn.Parameter) -> bool:
    gradient = parameter.grad if parameter.ndim > 1 else parameter.grad[None]
    return bool(gradient.ne(0).any(dim=-1).reshape(-1, gradient.shape[-2]).any(dim=0).all())


def test_counted_is_what_the_untouched_model_uses(tmp_path):
    table = count(parse_experiment(small_words(tmp_path, FULL)).model)
    assert {part["name"]: part["trained"] for part in table["parts"]} == {
        "vision": 691_200,
        "interaction": 16_512,
        "language": 846_208,
    }
    assert table["added"] == 0


def test_nothing_to_train_is_refused():
    with pytest.raises(BadInputError, match="all false"):
        Full(vision=False, interaction=False, language=False)


def test_a_run_tunes_every_tensor_and_leaves_the_base(tmp_path):
    experiment, run = fitted(small_words(tmp_path, FULL, steps=3))
    model = experiment.model
    untuned = parse_experiment(small_words(tmp_path, FULL))
    check_experiment(untuned)
    untuned.model.configure_model()
    start, tuned = declared_tensors(untuned.model.method), load_file(run / "adapter" / "adapter_model.safetensors")
    assert start.keys() == tuned.keys()
    assert all(not torch.equal(start[name], tuned[name]) for name in start)
    for each in (model, untuned.model):
        each.method.detach(each.backbone)
    assert hash_tensors(model.backbone.state_dict()) == hash_tensors(untuned.model.backbone.state_dict())
    saved = read_checkpoint(latest_checkpoint(run / "checkpoints"))["state_dict"]
    assert set(saved) == {f"method.{name}" for name in tuned}
    toggles = json.loads((run / "run.json").read_text())["toggles"]
    assert toggles == {"method": "full", "vision": True, "interaction": True, "language": True}


def test_a_stopped_run_resumes_bit_for_bit(tmp_path):
    words = [*small_words(tmp_path, FULL, steps=5), "--data.micro_batch_size", "4"]
    _, straight = fitted(words, run=tmp_path / "straight")
    experiment, stopped = parse_experiment(words), tmp_path / "stopped"
    experiment.trainer_config["callbacks"] = [StopAtStep(3, signal.SIGTERM)]
    with pytest.raises(SystemExit):
        fit(experiment, folder=stopped)
    assert step_of(latest_checkpoint(stopped / "checkpoints")) == 3
    fitted(words, run=stopped)
    one, other = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (straight, stopped))
    assert hash_tensors(one) == hash_tensors(other)


def test_an_ablation_is_one_changed_argument(tmp_path):
    experiment, _ = fitted([*small_words(tmp_path, FULL, steps=1), "--model.method.vision", "false"])
    method, backbone = experiment.model.method, experiment.model.backbone
    assert list(method.parts()) == ["interaction", "language"]
    assert backbone.vision_tower.conv1.weight.requires_grad is False


def test_recomputed_activations_change_no_gradient(tmp_path):
    gradients = []
    for recomputes in (False, True):
        backbone = random_backbone(tmp_path)
        backbone.activation_checkpointing = recomputes
        backbone.finish()
        backbone.train()
        method = attached(backbone)
        supervised_rows(backbone, random_batch()).losses.sum().backward()
        gradients.append({name: parameter.grad for name, parameter in method.named_parameters()})
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


RELOAD = """
import sys
from pathlib import Path
from experiments.runs.loading import experiment_of_run, load_run
from experiments.runs.prepare import check_experiment
from lightning_m2pt.storage.adapter_folder import declared_tensors
from lightning_m2pt.system.tensor_hashes import hash_tensors

run = Path(sys.argv[1])
experiment = experiment_of_run(run)
check_experiment(experiment)
load_run(run, experiment)
sys.stdout.write("tensors " + hash_tensors(declared_tensors(experiment.model.method)))
"""


def test_reloaded_in_a_fresh_process_the_tensors_are_identical(tmp_path):
    experiment, run = fitted(small_words(tmp_path, FULL, steps=2))
    ended = subprocess.run([sys.executable, "-c", RELOAD, str(run)], check=True, capture_output=True, text=True)
    assert ended.stdout.endswith(f"tensors {hash_tensors(declared_tensors(experiment.model.method))}")


def test_a_reloaded_adapter_computes_the_same(tmp_path):
    experiment, run = fitted(small_words(tmp_path, FULL, steps=2))
    again = experiment_of_run(run)
    check_experiment(again)
    load_run(run, again)
    one, other = experiment.model.backbone, again.model.backbone
    assert hash_tensors(one.state_dict()) == hash_tensors(other.state_dict())
    with pytest.raises(BadInputError, match="vision is True in the adapter and False"):
        load_run(run, experiment_of_run(run, ["--model.method.vision", "false"]))


def test_the_shipped_file_asks_for_one_rate_for_each_part():
    experiment = parse_experiment(["--config", FULL])
    assert list(experiment.model.optimizer_settings.learning_rate) == PARTS
    experiment.model.check()
