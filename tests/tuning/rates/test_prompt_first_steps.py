"""Prompts that move alone at first, by value: rates, moments, decay, clipping, and what begins behind them."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from experiments.commands.check import main as check
from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import deciding, run_folder
from experiments.runs.tuning import check_tuning_settings, fit
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.frozen import Frozen
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.gradient_norm import GradientNorm
from lightning_m2pt.tuning.optimizer import AdamW, Schedule
from lightning_m2pt.tuning.prompt_first import check_length, check_parts, waiting_parts
from tests.support.ranks import RanksFailedError, on_ranks
from tests.support.runs.whole_trainings import assert_the_same_however_split, table_of_killed_and_whole, tune
from tests.support.small_experiment import small_words
from tests.support.small_training import Gradients, adamw_by_hand, loader_of, module_with, one_step, small_trainer

FIRST = "--model.schedule.prompt_first_steps"
RATES = {"visual_prompts": 5e-4, "textual_prompts": 2e-4, "interaction": 5e-5}
PROMPTS = ("visual_prompts", "textual_prompts")
ADAMW: dict[str, Any] = {"betas": (0.7, 0.9), "epsilon": 1e-3, "weight_decay": 0.2}


class Rates(Callback):
    """Keeps the rate of every part at every step."""

    def __init__(self) -> None:
        self.rates: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})


LINEAR = [0, 1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4]
"""Seven steps, of which 0.4 (rounded up) warm up."""
LINEAR_BEHIND = [0, 0, 0, 0, 1 / 2, 1, 1 / 2]
"""Three in which prompts move alone, then the schedule of four steps."""


def test_every_tensor_is_where_adamw_by_hand_puts_it(tmp_path: Path) -> None:
    """Seven steps of two micro-batches: parts that wait start moments, decay and warm-up with their first step."""
    settings = AdamW(dict(RATES), **ADAMW)
    module = module_with(tmp_path, M2PT(2, 1), optimizer=settings, schedule=Schedule("linear", 0.4, 3))
    parts = {part: [f"method.{name}" for name, _ in tensors] for part, tensors in module.method.parts().items()}
    pairs = [one_step([random_batch(1, seed=2 * number + k) for k in (1, 2)]) for number in range(7)]
    gradients, rates = Gradients(), Rates()
    trainer = small_trainer(gradients, rates, accumulate_grad_batches=2, max_steps=7)
    trainer.fit(module, loader_of([batch for pair in pairs for batch in pair]))
    found = {part: [step[part] for step in rates.rates] for part in parts}
    for part in parts:
        shares = LINEAR if part in PROMPTS else LINEAR_BEHIND
        assert found[part] == pytest.approx([RATES[part] * share for share in shares], rel=1e-9), part
    trained = dict(module.named_parameters())
    for part, names in parts.items():
        begins = 0 if part in PROMPTS else 3
        for name in names:
            taken = [step[name] for step in gradients.steps[begins:]]
            assert all(gradient.any() for gradient in taken)
            expected = adamw_by_hand(gradients.start[name], taken, found[part][begins:], **ADAMW)
            assert torch.allclose(trained[name].double(), expected, rtol=1e-5, atol=1e-7), name
            assert not torch.equal(trained[name].double(), gradients.start[name])
            state = trainer.optimizers[0].state[trained[name]]
            assert float(state["step"]) == 7 - begins


def double(*shape: int, seed: int) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=generator))


def optimizer_of(one: nn.Parameter, two: nn.Parameter, waiting: int) -> torch.optim.AdamW:
    parts = {"prompts": [("a", one)], "rest": [("b", two)]}
    return AdamW({"prompts": 0.1, "rest": 0.02}, **ADAMW).build(parts, None, {"rest": waiting} if waiting else None)


def test_what_waits_begins_as_a_fresh_optimizer_would_bit_for_bit() -> None:
    """Its gradients of before are there all the time, and whoever looks at them afterwards sees them."""
    prompt, rest, alone, fresh = double(4, seed=1), double(5, seed=2), double(4, seed=1), double(5, seed=2)
    both, first, behind = optimizer_of(prompt, rest, 3), optimizer_of(alone, double(2, seed=3), 0), AdamW(0.02, **ADAMW)
    later = behind.build({"rest": [("b", fresh)]})
    assert type(first) is type(later) is torch.optim.AdamW
    for step in range(8):
        prompt.grad = alone.grad = double(4, seed=20 + step).detach()
        rest.grad = double(5, seed=40 + step).detach()
        seen = rest.grad.clone()
        both.step()
        first.step()
        assert torch.equal(rest.grad, seen)
        if step >= 3:
            fresh.grad = seen.clone()
            later.step()
        assert (rest in both.state) == (step >= 3)
        assert torch.equal(rest, fresh)
    assert torch.equal(prompt, alone)


def test_without_a_warm_up_the_others_begin_at_their_whole_rate() -> None:
    optimizer = optimizer_of(double(4, seed=1), double(5, seed=2), 2)
    first, behind = Schedule("linear", 0.0, 2).build(optimizer, 6).lr_lambdas
    assert [first(step) for step in range(6)] == pytest.approx([1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert [behind(step) for step in range(6)] == pytest.approx([0, 0, 1, 3 / 4, 2 / 4, 1 / 4])


@pytest.mark.parametrize("stopped", [1, 3, 5])
def test_a_state_taken_anywhere_goes_on_bit_for_bit(stopped: int) -> None:
    """Before the others begin, at that very step, and behind it."""
    gradients = [(double(4, seed=20 + step).detach(), double(5, seed=40 + step).detach()) for step in range(7)]
    ends = []
    for cut in (0, stopped):
        one, two = double(4, seed=1), double(5, seed=2)
        optimizer = optimizer_of(one, two, 3)
        for step, (first, second) in enumerate(gradients):
            if cut and step == cut:
                state, (one, two) = optimizer.state_dict(), [nn.Parameter(each.detach().clone()) for each in (one, two)]
                optimizer = optimizer_of(one, two, 3)
                optimizer.load_state_dict(state)
            one.grad, two.grad = first.clone(), second.clone()
            optimizer.step()
        ends.append((one, two))
    for whole, cut_up in zip(*ends, strict=True):
        assert torch.equal(whole, cut_up)


@pytest.mark.parametrize(("steps", "moving"), [(1, PROMPTS), (2, (*PROMPTS, "interaction"))], ids=["alone", "together"])
def test_clipping_measures_what_moves(tmp_path: Path, steps: int, moving: tuple[str, ...]) -> None:
    """While prompts move alone the limit is on their gradients; from then on on all."""
    settings, limit = AdamW(dict(RATES), **ADAMW), 1e-3
    schedule = Schedule("constant_with_warmup", 0.0, 1)
    module = module_with(tmp_path, M2PT(2, 1), optimizer=settings, schedule=schedule)
    gradients = Gradients()
    trainer = small_trainer(gradients, max_steps=2, gradient_clip_val=limit)
    clipped: list[dict[str, Tensor]] = []
    own = module.optimizer_step

    def step(*arguments: Any, **words: Any) -> None:
        own(*arguments, **words)
        clipped.append({name: each.grad.double() for name, each in module.method.named_tensors().items()})

    module.optimizer_step = step  # type: ignore[method-assign]
    trainer.fit(module, loader_of(one_step([random_batch(2, seed=1)]) * 2))
    before, after = gradients.steps[steps - 1], clipped[steps - 1]
    parts = {part: [name for name, _ in tensors] for part, tensors in module.method.parts().items()}
    names = [name for part in moving for name in parts[part]]
    norm = math.sqrt(sum(float(before[f"method.{name}"].square().sum()) for name in names))
    assert norm > 2 * limit
    for name in names:
        assert torch.allclose(after[name], before[f"method.{name}"] * (limit / norm), rtol=1e-4, atol=1e-12), name
    for name in set(after) - set(names):
        assert torch.equal(after[name], before[f"method.{name}"])


STEPS = 6


def words_for(folder: Path, *words: str) -> list[str]:
    rates = f"--model.optimizer.learning_rate={json.dumps(RATES)}"
    return [*small_words(folder, steps=STEPS), rates, f"{FIRST}=3", "--model.optimizer.weight_decay=0.1", *words]


def logged(table: str, part: str) -> list[float]:
    rows = csv.DictReader(table.splitlines())
    return [float(row[key]) for row in rows if row.get(key := f"lr-AdamWByParts/{part}")]


def test_a_step_is_the_same_however_it_is_split(tmp_path: Path) -> None:
    """1 x 8 = 4 x 2 = 2 ranks x 4, over the step where the others begin."""
    words = words_for(tmp_path, "--model.backbone.dtype=float64", "--trainer.max_steps=5")
    assert_the_same_however_split(words, tmp_path)


def test_a_run_killed_before_the_others_begin_ends_as_one_that_was_left_alone(tmp_path: Path) -> None:
    """Killed in its third step, the last of prompts alone; rates stand in the table by value."""
    table = table_of_killed_and_whole(words_for(tmp_path), tmp_path, 3)
    cosine = [0.0, *((1 + math.cos(math.pi * step / 5)) / 2 for step in range(5))]
    behind = [0.0] * 4 + [(1 + math.cos(math.pi * step / 2)) / 2 for step in range(2)]
    assert logged(table, "visual_prompts") == pytest.approx([5e-4 * share for share in cosine])
    assert logged(table, "interaction") == pytest.approx([5e-5 * share for share in behind])


@pytest.mark.slow
def test_shared_out_weights_end_as_one_process(tmp_path: Path) -> None:
    """FSDP2 on two ranks, killed at the step where the others begin."""
    words = words_for(tmp_path, "--model.backbone.dtype=float64", "--data.micro_batch_size=4")
    whole = tune([*words, "--model.method.path=token"], tmp_path / "whole")
    ranks = [*words, "--config", "experiments/strategies/fsdp.yaml", "--trainer.devices=2", "--save_every_n_steps=1"]
    with pytest.raises(RanksFailedError):
        on_ranks(2, tune, ranks, tmp_path / "ranks", 4)
    first, second = on_ranks(2, tune, ranks, tmp_path / "ranks")
    for name, tensor in whole.items():
        assert torch.allclose(first[name], tensor, rtol=0, atol=2.4e-7), name
        assert torch.equal(first[name], second[name])


def test_it_is_part_of_a_runs_name_and_names_of_before_stay(tmp_path: Path) -> None:
    small = small_words(tmp_path)
    plain, none = (parse_experiment([*small, *more]) for more in ([], [f"{FIRST}=0"]))
    assert deciding(plain)["schedule"] == {"name": "cosine", "warmup_ratio": 0.03}
    assert run_folder(plain) == run_folder(none)
    first = [parse_experiment([*small, f"{FIRST}={steps}"]) for steps in (2, 3)]
    assert deciding(first[0])["schedule"]["prompt_first_steps"] == 2
    assert len({run_folder(each).name for each in (plain, *first)}) == 3


def test_without_it_the_optimizer_is_torchs_own(tmp_path: Path) -> None:
    module = module_with(tmp_path, M2PT(2, 1))
    small_trainer(max_steps=1).fit(module, loader_of(one_step([random_batch(1, seed=1)])))
    assert type(module.trainer.optimizers[0]) is torch.optim.AdamW


METHODS: dict[str, tuple[Method, list[str]]] = {
    "m2pt": (M2PT(2, 1), ["visual_prompts", "textual_prompts"]),
    "vpt": (M2PT(2, 0, lm_head=True), ["visual_prompts"]),
    "aprompt": (APrompt(), ["input_prompts", "query_prompts", "key_value_prompts"]),
    "prefix": (PrefixTuning(), ["prefix"]),
    "pixels": (PixelPrompting(), ["pixel_prompt"]),
    "lora": (Lora(), []),
    "adapter": (Adapter(), []),
    "norms": (LayerNormTuning(), []),
    "both": (Combined([Lora(interaction=False), M2PT(2, 1), PixelPrompting()]), [*PROMPTS, "pixel_prompt"]),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_say_which_of_their_parts_are_prompts(name: str) -> None:
    method, prompts = METHODS[name]
    assert method.prompt_parts() == prompts
    assert method.prompt_names <= set(method.possible_parts())
    assert waiting_parts(0, method, None) == {}
    assert waiting_parts(4, method, None) == dict.fromkeys(set(method.part_names()) - set(prompts), 4)


def test_parts_of_the_other_rule_count_as_prompts() -> None:
    rule = GradientNorm(rate=1.0, parts=["language_low_rank"])
    assert waiting_parts(2, Lora(), rule) == {"interaction": 2}
    check_parts(2, Lora(), rule)


REFUSED: dict[str, tuple[Method, str]] = {
    "no prompts": (Lora(), "none of language_low_rank, interaction is a prompt"),
    "nothing else": (M2PT(2, 1, interaction=False), "the method trains visual_prompts, textual_prompts alone"),
    "nothing": (Frozen(), "the method trains nothing alone"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_methods_without_prompts_or_without_more_are_refused(case: str) -> None:
    method, sentence = REFUSED[case]
    assert sentence in refusal(lambda: check_parts(2, method, None))
    check_parts(0, method, None)


def test_the_whole_experiment_is_refused_when_it_is_read(tmp_path: Path) -> None:
    lora = small_words(tmp_path, "experiments/lora_base.yaml")
    assert "is a prompt" in refusal(lambda: parse_experiment([*lora, f"{FIRST}=2"]))


def refusal(what: Any) -> str:
    with pytest.raises(BadInputError) as refused:
        what()
    text = str(refused.value)
    assert "model.schedule.prompt_first_steps" in text
    assert len(text.splitlines()) in (2, 3)
    return text


def test_a_run_in_which_nothing_else_would_begin_is_refused(tmp_path: Path) -> None:
    """By steps before anything is read; by epochs before weights are loaded; -1 at once."""
    words = small_words(tmp_path, steps=3)
    assert "-1 is no number of steps" in refusal(lambda: parse_experiment([*words, f"{FIRST}=-1"]))
    check_tuning_settings(parse_experiment([*words, f"{FIRST}=2"]))
    assert "the run has 3" in refusal(lambda: check_tuning_settings(parse_experiment([*words, f"{FIRST}=3"])))
    epochs = parse_experiment([*words, "--trainer.max_steps=-1", "--trainer.max_epochs=2", f"{FIRST}=4"])
    assert "the run has 4" in refusal(lambda: fit(epochs, folder=tmp_path / "run"))
    assert not epochs.model.backbone.is_loaded
    assert not (tmp_path / "run" / "run.json").exists()
    for limits, steps in ((["--trainer.max_steps=3"], 3), (["--trainer.max_steps=-1", "--trainer.max_epochs=2"], 4)):
        asked = [*words, *limits]
        assert f"the run has {steps}" in refusal(lambda all_words=(*asked, f"{FIRST}={steps}"): check(all_words))
        assert check([*asked, f"{FIRST}={steps - 1}"]) == 0
    check_length(0, 1)
    check_length(3, math.inf)


def test_under_a_trainer_of_ones_own_it_is_refused_before_weights(tmp_path: Path) -> None:
    module = module_with(tmp_path, M2PT(2, 1), schedule=Schedule(prompt_first_steps=4))
    loader = loader_of(one_step([random_batch(1, seed=1)]) * 2)
    configured: list[bool] = []
    module.configure_model = lambda: configured.append(True)  # type: ignore[method-assign]
    assert "the run has 4" in refusal(lambda: small_trainer(max_epochs=2).fit(module, loader))
    assert not configured


def test_deepspeed_is_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    zero = [*small_words(tmp_path), f"{FIRST}=2", "--config", "experiments/strategies/deepspeed_stage_2.yaml"]
    assert "DeepSpeed" in refusal(lambda: check_tuning_settings(parse_experiment(zero)))
