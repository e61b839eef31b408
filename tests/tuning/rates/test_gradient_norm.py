"""Steps of a fixed length along the gradient, by value: their length, what stays, what AdamW does beside them."""

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from callbacks.gradient_check import GradientCheck
from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import deciding, run_folder
from experiments.runs.tuning import check_tuning_settings
from lightning_m2pt.errors import BadInputError, DivergedError
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning.gradient_norm import GradientNorm
from lightning_m2pt.tuning.optimizer import AdamW, Schedule
from tests.support.runs.whole_trainings import assert_the_same_however_split, table_of_killed_and_whole
from tests.support.small_experiment import small_words
from tests.support.small_training import Gradients, adamw_by_hand, loader_of, module_with, one_step, small_trainer

RULE = "--model.gradient_norm"
RATES = {"textual_prompts": 2e-4, "interaction": 5e-5}
ADAMW: dict[str, Any] = {"betas": (0.7, 0.9), "epsilon": 1e-3, "weight_decay": 0.2}


def double(*shape: int, seed: int) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=generator))


def border(side: int, width: int) -> Tensor:
    moves = torch.ones(1, side, side, dtype=torch.bool)
    moves[:, width:-width, width:-width] = False
    return moves


@pytest.mark.parametrize("norm", ["all", "border"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_step_has_exactly_the_length_that_the_rule_says(norm: Any, scale: float) -> None:
    """However large the gradient is: the rate, or the rate times the border's share of the norm."""
    prompt, moves = double(3, 8, 8, seed=1), border(8, 2)
    prompt.moves = moves  # type: ignore[attr-defined]
    start, gradient = prompt.detach().clone(), scale * double(3, 8, 8, seed=2).detach()
    prompt.grad = gradient.clone()
    AdamW().build({"pixel_prompt": [("delta", prompt)]}, GradientNorm(rate=0.25, norm=norm)).step()
    moved = prompt.detach() - start
    inside = moves.expand_as(gradient)
    whole, outer = math.sqrt(float(gradient.square().sum())), math.sqrt(float(gradient[inside].square().sum()))
    expected = 0.25 * (outer / whole if norm == "all" else 1.0)
    assert 0.5 < outer / whole < 0.95
    assert float(moved.norm()) == pytest.approx(expected, rel=1e-3 if scale < 1 else 1e-9)
    divisor = (whole if norm == "all" else outer) + 1e-10
    assert torch.allclose(moved[inside], -0.25 * gradient[inside] / divisor, rtol=0, atol=1e-15)
    assert not moved[~inside].any()
    assert torch.equal(prompt.grad, gradient)  # whoever looks at it afterwards sees what the backward pass gave


def test_the_tensors_of_a_part_share_one_step() -> None:
    tensors = [double(4, seed=3), double(2, 3, seed=4)]
    starts, gradients = [each.detach().clone() for each in tensors], [double(4, seed=5), double(2, 3, seed=6)]
    for tensor, gradient in zip(tensors, gradients, strict=True):
        tensor.grad = gradient.detach().clone()
    parts = {"visual_prompts": [(str(number), each) for number, each in enumerate(tensors)]}
    AdamW().build(parts, GradientNorm(rate=2.0, parts=["visual_prompts"])).step()
    norm = math.sqrt(sum(float(each.detach().square().sum()) for each in gradients))
    for tensor, start, gradient in zip(tensors, starts, gradients, strict=True):
        assert torch.allclose(tensor, start - 2.0 * gradient / norm, rtol=1e-9)


@pytest.mark.parametrize("gradient", ["zeros", "none"])
def test_without_a_gradient_nothing_moves_and_nothing_is_nan(gradient: str) -> None:
    prompt = double(3, 4, 4, seed=1)
    start = prompt.detach().clone()
    prompt.grad = torch.zeros_like(prompt) if gradient == "zeros" else None
    AdamW().build({"pixel_prompt": [("delta", prompt)]}, GradientNorm(rate=9.0)).step()
    assert torch.equal(prompt, start)


def test_grey_levels_are_the_root_mean_square_of_what_moves() -> None:
    """As many as published: 9.6 grey levels in 69,840 entries are a rate of 10."""
    prompt = nn.Parameter(torch.zeros(3, 224, 224))
    prompt.moves = border(224, 30)  # type: ignore[attr-defined]
    optimizer = AdamW().build({"pixel_prompt": [("delta", prompt)]}, GradientNorm(grey_levels=9.6))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(9.6 / 255 * math.sqrt(69_840))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(10, abs=0.06)
    prompt.grad = torch.where(border(224, 30), 3.0, 0.0).expand(3, 224, 224).clone()
    optimizer.step()
    moved = prompt.detach()[border(224, 30).expand_as(prompt)]
    assert 255 * float(moved.square().mean().sqrt()) == pytest.approx(9.6, rel=1e-5)


def test_adamws_parts_do_what_they_did_without_the_rule_and_its_masked_entries_stay() -> None:
    """Five steps: what stands beside a part of the rule is the same bit for bit; a masked tensor is as by hand."""
    alone, beside, masked, ruled = double(5, seed=1), double(5, seed=1), double(3, 6, 6, seed=2), double(7, seed=3)
    masked.moves = border(6, 1)  # type: ignore[attr-defined]
    start, inside = masked.detach().clone(), border(6, 1).expand(3, 6, 6)
    settings = AdamW(learning_rate={"one": 0.1, "two": 0.02}, **{**ADAMW, "weight_decay": 0.0})
    rule = GradientNorm(rate=1.0, parts=["three"])
    mixed = settings.build({"one": [("a", beside)], "two": [("m", masked)], "three": [("r", ruled)]}, rule)
    plain = settings.build({"one": [("a", alone)]})
    assert type(plain) is torch.optim.AdamW
    gradients = [double(3, 6, 6, seed=20 + step).detach() for step in range(5)]
    for step in range(5):
        alone.grad, beside.grad = (double(5, seed=40 + step).detach() for _ in range(2))
        masked.grad, ruled.grad = gradients[step].clone(), double(7, seed=60 + step).detach()
        mixed.step()
        plain.step()
    assert torch.equal(alone, beside)
    constants = {**ADAMW, "weight_decay": 0.0}
    expected = adamw_by_hand(start, [each * border(6, 1) for each in gradients], [0.02] * 5, **constants)
    assert torch.allclose(masked, expected, rtol=1e-12)
    assert torch.equal(masked[~inside], start[~inside])
    assert set(mixed.state[masked]) == {"step", "exp_avg", "exp_avg_sq"}
    assert ruled not in mixed.state


class Rates(Callback):
    """Keeps the rate of every group at every step, and what moved."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])


DECAYS = {
    "step": [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)],
    "epoch": [1, 1, 0.75, 0.75, 0.25, 0.25],
    "none": [1] * 6,
}


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("length", [{"max_epochs": 3}, {"max_steps": 6, "max_epochs": -1}], ids=["epochs", "steps"])
def test_rates_of_every_step_are_the_formulas(tmp_path: Path, decay: Any, length: dict[str, int]) -> None:
    """Three epochs of two steps of two micro-batches; AdamW's parts keep their schedule."""
    rule = GradientNorm(rate=1e-3, decay=decay, parts=["visual_prompts"])
    module = module_with(tmp_path, M2PT(2, 1), gradient_norm=rule, schedule=Schedule("linear", 0.4))
    batches = [each for number in range(2) for each in one_step([random_batch(1, seed=2 * number + k) for k in (1, 2)])]
    rates = Rates()
    small_trainer(rates, accumulate_grad_batches=2, **length).fit(module, loader_of(batches))
    names = list(module.method.parts())
    found = {name: [step[number] for step in rates.rates] for number, name in enumerate(names)}
    assert found["visual_prompts"] == pytest.approx([1e-3 * share for share in DECAYS[decay]])
    linear = [0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]
    assert found["interaction"] == pytest.approx([7e-4 * share for share in linear])


def test_a_last_epoch_that_is_cut_short_is_an_epoch_of_the_cosine() -> None:
    """Five steps of two in an epoch are three epochs."""
    loop = SimpleNamespace(setup_data=lambda: None)
    trainer: Any = SimpleNamespace(fit_loop=loop, num_training_batches=4, accumulate_grad_batches=2)
    share = GradientNorm(rate=1.0, decay="epoch").shares(trainer, 5)["pixel_prompt"]
    assert [share(step) for step in range(7)] == pytest.approx([1, 1, 0.75, 0.75, 0.25, 0.25, 0])


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_is_adamws_alone(tmp_path: Path, algorithm: str) -> None:
    """The limit is on the norm of what AdamW moves, its masked entries left out; the rule's step is not shortened."""
    rule = GradientNorm(rate=0.05, decay="none", parts=["visual_prompts"])
    settings = AdamW({"textual_prompts": 0.03, "interaction": 5e-3}, **ADAMW)
    module = module_with(
        tmp_path, M2PT(2, 1), gradient_norm=rule, optimizer=settings, schedule=Schedule("constant_with_warmup", 0.0)
    )
    parts = {part: dict(tensors) for part, tensors in module.method.parts().items()}
    for tensor in parts["textual_prompts"].values():
        tensor.moves = torch.arange(tensor.shape[-1]) % 2 == 0  # type: ignore[attr-defined]
    gradients, limit = Gradients(), 1e-3
    trainer = small_trainer(gradients, max_steps=1, gradient_clip_val=limit, gradient_clip_algorithm=algorithm)
    trainer.fit(module, loader_of(one_step([random_batch(2, seed=1)])))
    [step] = gradients.steps
    taken = {
        name: step[f"method.{name}"] * getattr(tensor, "moves", 1)
        for part in ("textual_prompts", "interaction")
        for name, tensor in parts[part].items()
    }
    norm = math.sqrt(sum(float(each.square().sum()) for each in taken.values()))
    assert norm > limit
    for part in ("textual_prompts", "interaction"):
        for name, tensor in parts[part].items():
            clipped = taken[name] * limit / norm if algorithm == "norm" else taken[name].clamp(-limit, limit)
            start = gradients.start[f"method.{name}"]
            expected = adamw_by_hand(start, [clipped], [settings.rate_of(part)], **ADAMW)
            assert torch.allclose(tensor.double(), expected, rtol=1e-5, atol=1e-7), name
    moved = [tensor.double() - gradients.start[f"method.{name}"] for name, tensor in parts["visual_prompts"].items()]
    length = math.sqrt(sum(float(each.square().sum()) for each in moved))
    assert length == pytest.approx(0.05, rel=1e-4)


def test_a_gradient_that_is_not_finite_is_stopped_before_the_step(tmp_path: Path) -> None:
    rule = GradientNorm(rate=0.05, parts=["visual_prompts"])
    module = module_with(tmp_path, M2PT(2, 1), gradient_norm=rule)
    _, prompts = module.method.parts()["visual_prompts"][0]
    start = prompts.detach().clone()
    prompts.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(DivergedError, match="not finite"):
        small_trainer(GradientCheck(), max_steps=1).fit(module, loader_of(one_step([random_batch(2, seed=1)])))
    assert torch.equal(prompts, start)


STEPS = 6


def words_for(folder: Path, *words: str) -> list[str]:
    rates = f"--model.optimizer.learning_rate={json.dumps(RATES)}"
    rule = [f"{RULE}.rate=0.01", f"{RULE}.parts=[visual_prompts]"]
    return [*small_words(folder, steps=STEPS), rates, *rule, *words]


def test_a_step_is_the_same_however_it_is_split(tmp_path: Path) -> None:
    """1 x 8 = 4 x 2 = 2 ranks x 4: gradients are averaged first, and their mean is divided by its norm."""
    words = words_for(tmp_path, "--model.backbone.dtype=float64", "--trainer.max_steps=3")
    assert_the_same_however_split(words, tmp_path)


def test_a_killed_run_ends_as_one_that_was_left_alone(tmp_path: Path) -> None:
    """Killed in its fourth step, with the rates of both rules in the table."""
    table = table_of_killed_and_whole(words_for(tmp_path), tmp_path, 4)
    rows = [row for row in csv.DictReader(table.splitlines()) if row.get("lr-AdamWByParts/visual_prompts")]
    found = [float(row["lr-AdamWByParts/visual_prompts"]) for row in rows]
    assert found == pytest.approx([0.01 * share for share in DECAYS["step"]])


def test_the_rule_is_part_of_a_runs_name_and_names_of_before_stay(tmp_path: Path) -> None:
    small = small_words(tmp_path)
    plain, null = (parse_experiment([*small, *more]) for more in ([], [f"{RULE}=null"]))
    assert not {"gradient_norm", "regularisers"} & set(deciding(plain))
    assert run_folder(plain) == run_folder(null)
    ruled = [parse_experiment(words_for(tmp_path, f"{RULE}.rate={rate}")) for rate in (0.01, 0.02)]
    assert deciding(ruled[0])["gradient_norm"]["rate"] == 0.01
    assert len({run_folder(each).name for each in (plain, *ruled)}) == 3


METHOD = M2PT(2, 0)
PARTS = ["visual_prompts", "interaction"]
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "both": ({"grey_levels": 2.0}, {}, "model.gradient_norm: rate and grey_levels both say"),
    "neither": ({"rate": None}, {}, "model.gradient_norm: nothing says how long"),
    "zero": ({"rate": 0.0}, {}, "model.gradient_norm.rate: 0.0 is no length"),
    "endless": ({"rate": math.inf}, {}, "model.gradient_norm.rate: inf is no length"),
    "no part": ({"parts": []}, {}, "model.gradient_norm.parts: parts are"),
    "twice": ({"parts": ["interaction"] * 2}, {}, "model.gradient_norm.parts: parts are"),
    "other part": ({"parts": ["vision"]}, {}, "the method has no part 'vision'"),
    "no colours": ({"rate": None, "grey_levels": 2.0}, {}, "visual_prompts are not colours"),
    "two rates": ({}, {"learning_rate": dict.fromkeys(PARTS, 1.0)}, "visual_prompts moves by model.gradient_norm"),
    "nothing decays": ({"parts": PARTS}, {"weight_decay": 0.1}, "0.1 has no part to work on"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_its_name(case: str) -> None:
    rule, adamw, sentence = REFUSED[case]
    with pytest.raises(BadInputError) as refused:  # noqa: PT012  (either may refuse)
        made = GradientNorm(**{"rate": 1.0, "parts": ["visual_prompts"], **rule})
        made.check(METHOD)
        AdamW(**adamw).check(PARTS, PARTS, made)
    assert sentence in str(refused.value)
    assert len(str(refused.value).splitlines()) in (2, 3)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        (f"{RULE}.norm=inside", "model.gradient_norm.norm: 'inside' does not fit"),
        (f"{RULE}.rat=1", "model.gradient_norm.rat: unknown key"),
        (f"{RULE}=3", "model.gradient_norm: '3' holds no settings"),
        (f"{RULE}.parts=[pixels]", "model.gradient_norm.parts: the method has no part 'pixels'"),
    ],
)
def test_a_mistake_on_the_command_line_is_refused_where_it_stands(tmp_path: Path, word: str, sentence: str) -> None:
    with pytest.raises(BadInputError) as refused:
        parse_experiment(words_for(tmp_path, word))
    assert sentence in str(refused.value)


def test_grey_levels_are_those_of_pixels_alone() -> None:
    rule, others = GradientNorm(grey_levels=2.0), M2PT(2, 0)
    rule.check(PixelPrompting())
    rule.check(Combined([others, PixelPrompting()]))
    for method in (PixelPrompting(space="normalised"), Combined([PixelPrompting(space="normalised"), others])):
        with pytest.raises(BadInputError, match=r"grey_levels: the prompt is behind the normalisation"):
            rule.check(method)
        GradientNorm(rate=2.0).check(method)


def test_deepspeed_is_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    zero = words_for(tmp_path, "--config", "experiments/strategies/deepspeed_stage_2.yaml")
    with pytest.raises(BadInputError, match=r"model\.gradient_norm: DeepSpeed shares out"):
        check_tuning_settings(parse_experiment(zero))
