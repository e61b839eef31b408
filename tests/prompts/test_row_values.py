"""Which row stands where, and what is measured of a step, by value."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from callbacks.gradient_check import GradientCheck
from callbacks.prompt_statistics import PromptStatistics
from lightning_m2pt.backbones.shortcuts import Shortcuts
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.prompts.attachment import Attachment
from lightning_m2pt.prompts.token_path import put_rows_first
from lightning_m2pt.testing.random_backbone import PATCHES, random_backbone, random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from lightning_m2pt.tuning.optimizer import AdamW
from tests.support.small_training import Gradients, loader_of, module_with, one_step, small_trainer

EVERY_ROW = Shortcuts(shared_rows_once=False, supervised_rows_only=False)


@pytest.mark.parametrize(
    ("kept", "replaced", "expected"),
    [(0, 0, [90, 91, 0, 1, 2, 3]), (0, 2, [90, 91, 2, 3]), (1, 0, [0, 90, 91, 1, 2, 3]), (1, 2, [0, 90, 91, 3])],
)
def test_prompt_rows_stand_behind_what_is_kept_and_in_the_place_of_what_is_replaced(kept, replaced, expected):
    hidden_states = torch.arange(4.0).view(1, 4, 1).expand(2, -1, 3)
    rows = torch.tensor([90.0, 91.0], dtype=torch.float64).view(1, 2, 1).expand(-1, -1, 3)
    found = put_rows_first(rows, hidden_states, replaced, kept)
    assert found.dtype == hidden_states.dtype
    assert found[..., 1].tolist() == [expected, expected]


@pytest.mark.parametrize(
    ("choice", "prompts", "cls"), [("official", [91, 92], True), ("all", [90, 91, 92], False), ("none", [], False)]
)
def test_the_rows_that_go_to_the_text_are_chosen_by_name(tmp_path, choice, prompts, cls):
    """Prompt rows 90 to 92, CLS 0, patches from 1 on: the published slice takes CLS and leaves out prompt row 0."""
    backbone = random_backbone(tmp_path)
    backbone.attachment = Attachment(visual_rows_to_text=choice)
    states = torch.arange(PATCHES + 1.0).view(1, -1, 1).expand(2, -1, 32)
    raw = torch.tensor([90.0, 91.0, 92.0]).view(1, 3, 1).expand(-1, -1, 32)
    found = backbone.select_rows(states, raw)
    patches = list(range(1, PATCHES + 1))
    assert found.rows[..., 5].tolist() == [[*prompts, *([0] if cls else []), *patches]] * 2
    assert found.spans == [Span.VISUAL_PROMPT] * len(prompts) + [Span.CLS] * cls + [Span.PATCH] * PATCHES


@pytest.mark.parametrize("position", ["before_cls", "after_cls"])
def test_the_first_block_reads_prompts_where_they_were_put(tmp_path, position):
    module = module_with(tmp_path, M2PT(3, 0, visual_position=position, path="token", interaction=False))
    seen: list[torch.Tensor] = []
    block = module.backbone.vision_tower.transformer.resblocks[0]
    batch = random_batch(2)
    module.backbone.attachment.visual_prompts = None
    handle = block.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    module.backbone.visual_rows(batch.pixel_values)
    handle.remove()
    module.method.attach(module.backbone)
    module.backbone.visual_rows(batch.pixel_values)  # installs its hooks, which come before this one
    handle = block.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    module.backbone.visual_rows(batch.pixel_values)
    handle.remove()
    plain, prompted = seen
    rows = module.method.visual_prompts.rows["0"].expand(2, -1, -1)
    front = int(position == "after_cls")
    assert torch.equal(prompted, torch.cat([plain[:, :front], rows, plain[:, front:]], dim=1))


@pytest.mark.parametrize("shortcuts", [EVERY_ROW, Shortcuts()], ids=["every row", "shortcuts"])
def test_the_loss_over_bfloat16_is_computed_in_float32(tmp_path, shortcuts):
    backbone = random_backbone(tmp_path, torch.bfloat16)
    batch = random_batch(dtype=torch.bfloat16)
    with torch.no_grad():
        states, labels = backbone.supervised_states(batch, shortcuts)
        logits = backbone.logits(states)
        found = supervised_rows(backbone, batch, shortcuts).losses
    assert logits.dtype == torch.bfloat16
    targets = labels[:, 1:][labels[:, 1:] != -100]
    expected = cross_entropy(logits.double(), targets, reduction="none")
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, atol=1e-5)  # bfloat16 would be off by a hundredth


def row_norm(tensors: list[torch.Tensor]) -> float:
    rows = [row for tensor in tensors for row in tensor.double().reshape(-1, tensor.shape[-1])]
    return sum(float(row.square().sum().sqrt()) for row in rows) / len(rows)


def test_what_is_logged_of_prompts_and_gradients_is_what_they_are(tmp_path):
    """Two micro-batches a step; the rows of several tensors of unequal size, and the length of the whole gradient."""
    module = module_with(tmp_path, M2PT(3, 2), optimizer=AdamW(0.0))
    gradients = Gradients()
    trainer = small_trainer(
        GradientCheck(), PromptStatistics(every_n_steps=2), gradients, max_steps=2, accumulate_grad_batches=2
    )
    batches = one_step([random_batch(3, answer=4, seed=1), random_batch(3, answer=3, seed=2)])
    logged: list[dict[str, float]] = []
    module.on_train_batch_end = lambda *_: logged.append(dict(trainer.callback_metrics))
    trainer.fit(module, loader_of([*batches, *(replace(batch) for batch in batches)]))
    metrics, found = trainer.callback_metrics, gradients.steps[-1]
    norm = sum(float(each.square().sum()) for each in found.values()) ** 0.5
    assert float(metrics["train/gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    for part in ("visual_prompts", "textual_prompts", "interaction"):
        of_part = [name for name in found if name.startswith(f"method.{part}.")]
        values = [gradients.start[name] for name in of_part]
        assert float(metrics[f"train/row_norm/{part}"]) == pytest.approx(row_norm(values), rel=1e-5)
        expected = row_norm([found[name] for name in of_part])
        assert float(metrics[f"train/gradient_row_norm/{part}"]) == pytest.approx(expected, rel=1e-5)
    assert not any("train/row_norm" in key for key in logged[1])  # nothing after step 1, which is not every second


def test_a_heads_gradient_and_the_projectors_start(tmp_path):
    """What stands in for pretrained tensors starts as they are, in float32."""
    module = module_with(tmp_path, M2PT(0, 0, lm_head=True))
    for part, own in (("interaction", module.backbone.projector), ("lm_head", module.backbone.pretrained_lm_head())):
        copy = getattr(module.method, part)
        assert isinstance(copy, nn.Linear)
        assert copy.weight is not own.weight
        assert torch.equal(copy.weight, own.weight.float())
