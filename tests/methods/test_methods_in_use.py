"""Every method under likelihood answers, recomputed activations, and both injection paths."""

from pathlib import Path

import pytest
import torch

from lightning_m2pt.answering.likelihood import candidate_log_probabilities
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.testing.random_backbone import random_backbone, random_batch
from lightning_m2pt.tuning.losses import supervised_rows
from tests.answering.test_likelihood import CANDIDATES, one_by_one, questions_of_many_lengths
from tests.methods.test_every_method import METHODS, built


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("images", [1, 3])
def test_candidates_side_by_side_equal_teacher_forcing(tmp_path: Path, name: str, images: int) -> None:
    backbone, batch = random_backbone(tmp_path, torch.float64), questions_of_many_lengths(images)
    built(name, backbone).attach(backbone)
    found = candidate_log_probabilities(backbone, batch, CANDIDATES)
    with torch.inference_mode():
        for row in range(len(batch)):
            expected = [one_by_one(backbone, batch, row, ids) for ids in CANDIDATES.token_ids]
            assert found[row].tolist() == pytest.approx(expected, abs=2e-5)  # what is trained computes in float32


@pytest.mark.parametrize("name", METHODS)
def test_recomputed_activations_change_no_gradient(tmp_path: Path, name: str) -> None:
    gradients = []
    for recomputes in (False, True):
        backbone = random_backbone(tmp_path)
        backbone.activation_checkpointing = backbone.shape.recomputes_activations = recomputes
        backbone.finish()
        backbone.train()
        method = built(name, backbone)
        method.attach(backbone)
        supervised_rows(backbone, random_batch()).losses.sum().backward()
        gradients.append([parameter.grad for tensors in method.parts().values() for _, parameter in tensors])
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("others", ["low rank, norms and adapters", "everything"])
def test_both_injection_paths_are_equal_where_other_methods_change_the_layers(tmp_path: Path, others: str) -> None:
    """The prefix path computes prompts' keys and values itself: through whatever is trained in the layers, too."""
    backbone, batch = random_backbone(tmp_path, torch.float64), random_batch(dtype=torch.float64)
    losses, gradients = [], []
    for path in ("token", "prefix"):
        beside: list[Method] = [Full()]
        if others != "everything":
            low_rank = Lora(2, dropout=0.0, vision=True, interaction=False)
            beside = [Adapter(4), low_rank, LayerNormTuning(vision=True, interaction=False)]
        method, generator = Combined([M2PT(5, 4, path=path, interaction=False), *beside]), torch.Generator()
        method.build(backbone, generator.manual_seed(3))
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        method.attach(backbone)
        losses.append(supervised_rows(backbone, batch).losses.sum())
        gradients.append(torch.autograd.grad(losses[-1], [p for ts in method.parts().values() for _, p in ts]))
        method.detach(backbone)
    assert float(losses[0]) == pytest.approx(float(losses[1]), abs=1e-4)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("path", ["token", "prefix"])
def test_float32_prompts_train_over_bfloat16_weights(tmp_path: Path, path: str) -> None:
    """bfloat16 has eight binary digits: loss and gradients are those of float32 weights to some percent."""
    losses, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        backbone, method = random_backbone(tmp_path, dtype), M2PT(5, 4, path=path)
        method.build(backbone, torch.Generator().manual_seed(3))
        method.attach(backbone)
        loss = supervised_rows(backbone, random_batch(dtype=dtype)).losses.sum()
        loss.backward()
        trained = [parameter for tensors in method.parts().values() for _, parameter in tensors]
        assert {parameter.dtype for parameter in trained} == {torch.float32}
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trained]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 0.1
