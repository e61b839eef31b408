"""The real pair with packed layers is the plain pair of the weights that are multiplied by, bit for bit.

How far those weights are from the files' own is another question, with figures in docs/quantised.md.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.quantised import QuantisedLinear, quantised_layers
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Batch
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.tuning.losses import supervised_rows
from tests.real.pair import batch_of, first_of_each, loaded_pair, pair, records, sample_of
from tests.support.quantised_backbone import needs

pytestmark = pytest.mark.real

BYTES_A_NUMBER = {"nf4": 0.5 + 4 / 64, "int8": 1.0}
FORMS = [("nf4", "bfloat16"), ("int8", "bfloat16"), ("nf4", "float32"), ("int8", "float32")]


@dataclass(frozen=True)
class Form:
    """A packed pair and the plain one of its unpacked weights."""

    quantization: Any
    packed: TowerAndDecoder
    plain: TowerAndDecoder


@pytest.fixture(scope="module", params=FORMS, ids=" in ".join)
def form(request: pytest.FixtureRequest, projector: Path) -> Form:
    quantization, dtype = request.param
    needs(quantization)
    packed, plain = loaded_pair(projector, dtype, quantization=quantization), loaded_pair(projector, dtype)
    names = {id(module): name for name, module in packed.named_modules()}
    for layer in quantised_layers(packed):
        plain.get_submodule(names[id(layer)]).weight.data.copy_(layer.dequantised(packed.dtype))
    return Form(quantization, packed, plain)


def questions(backbone: TowerAndDecoder, *, answered: bool) -> Batch:
    found = first_of_each(records(2, 1), 2)
    return batch_of(backbone, [sample_of(record, answered=answered) for record in found], answered=answered)


def tuned(backbone: TowerAndDecoder, steps: int = 0) -> tuple[list[float], dict[str, Tensor]]:
    """Returns the losses of Adam's steps on one batch, and the first step's gradients."""
    method, batch = M2PT(4, 4, init="normal", init_std=0.1), questions(backbone, answered=True)
    method.check(backbone.shape)
    method.build(backbone, torch.Generator().manual_seed(3))
    method.requires_grad_(True)  # the copy of a frozen projector is frozen
    method.attach(backbone)
    optimizer = torch.optim.Adam(method.parameters(), lr=5e-3)
    losses, first = [], {}
    for step in range(steps + 1):
        loss = supervised_rows(backbone, batch).losses.mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            first = {name: each.grad.clone() for name, each in method.named_parameters()}
        optimizer.step()
    method.detach(backbone)
    return losses, first


def test_every_layer_is_packed_and_takes_its_bytes(form: Form) -> None:
    layers = list(quantised_layers(form.packed))
    assert len(layers) == 7 * 30
    assert all(isinstance(layer, QuantisedLinear) for layer in layers)
    numbers = sum(layer.in_features * layer.out_features for layer in layers)
    held = sum(layer.packed.numel() * layer.packed.itemsize for layer in layers)
    scales = sum(layer.scales.numel() * layer.scales.itemsize for layer in layers)
    expected = BYTES_A_NUMBER[form.quantization] * numbers
    if form.quantization == "int8":
        expected += 4 * sum(layer.out_features for layer in layers)
    assert held + scales == expected


def test_answers_are_those_of_the_unpacked_weights(form: Form) -> None:
    batch = questions(form.packed, answered=False)
    with torch.no_grad():
        assert torch.equal(form.packed.prefill(batch).logits, form.plain.prefill(batch).logits)
    found = [greedy_answers(backbone, batch, 8, 2) for backbone in (form.packed, form.plain)]
    assert [answer.token_ids for answer in found[0]] == [answer.token_ids for answer in found[1]]
    assert all(len(answer.token_ids) > 1 for answer in found[0])


def test_gradients_are_those_of_the_unpacked_weights_and_prompts_learn(form: Form) -> None:
    losses, gradients = tuned(form.packed, steps=3)
    expected, wanted = tuned(form.plain)
    assert losses[0] == expected[0]
    assert losses[-1] < losses[0]
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, wanted[name])
        assert float(gradient.abs().max()) > 0


def test_what_packed_weights_cannot_do_is_refused_by_name(form: Form, projector: Path) -> None:
    with pytest.raises(BadInputError, match="quantised weights cannot be trained") as refused:
        Full().check(form.packed.shape)
    assert refused.value.where == "model.method.language"
    with pytest.raises(BadInputError, match=f"layers in {form.quantization} are not compiled"):
        pair(projector, compile_backend="aot_eager", quantization=form.quantization)
