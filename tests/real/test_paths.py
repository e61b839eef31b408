"""M2PT on the real pair equals a plain loop over the library's blocks, on both ways through it.

The loop below is the whole method, to be read beside the paper: before each block the first rows of what it reads
become that block's prompt rows. It takes one sample at a time, so that nothing is padded and no mask is needed, and
calls transformers' blocks, norms and head directly. Nothing of it is the project's but the tensors that are trained.
"""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.backbones.shortcuts import EVERY_ROW, Shortcuts
from lightning_m2pt.inputs.batch import IGNORED_LABEL
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.tuning.losses import supervised_rows
from tests.real.pair import IMAGE_MARK, LibraryPair, batch_of, first_of_each, library_pair, loaded_pair, records
from tests.real.pair import sample_of as sample
from tests.support.towers.float64_islands import float64_islands

pytestmark = pytest.mark.real

LENGTH = 5
WAYS = [("token", EVERY_ROW), ("prefix", EVERY_ROW), ("prefix", Shortcuts())]


def built(backbone: TowerAndDecoder, std: float) -> M2PT:
    """Returns M2PT with random prompts in every layer of both and a copy of the projector."""
    method = M2PT(LENGTH, LENGTH, init="normal", init_std=std)
    method.check(backbone.shape)
    method.build(backbone, torch.Generator().manual_seed(3))
    method.requires_grad_(True)  # the copy of a frozen projector is frozen
    return method.to(backbone.dtype)


def looped_picture_rows(library: LibraryPair, method: M2PT, image: object) -> Tensor:
    """Returns (1, LENGTH - 1 + 1 + 64, 576): as published, raw prompt rows but the first, CLS, patches, projected."""
    assert method.visual_prompts is not None
    assert method.interaction is not None
    prompts = list(method.visual_prompts.rows.values())
    blocks = library.tower.encoder.layer[:-1]
    states = library.tower.embeddings(library.pixels(image))
    for number, block in enumerate(blocks):
        rest = states if number == 0 else states[:, LENGTH:]
        states = block(torch.cat([prompts[number], rest], dim=1))
    features = torch.cat([prompts[len(blocks)], states[:, LENGTH:]], dim=1)
    return method.interaction(features[:, 1:])


def looped_logits(library: LibraryPair, method: M2PT, record: object) -> tuple[Tensor, Tensor]:
    """Returns (S, V) logits of a conversation's rows, and its tokens behind the picture."""
    assert method.textual_prompts is not None
    prompts = list(method.textual_prompts.rows.values())
    before, behind = library.text(record.instruction, record.answer).split(IMAGE_MARK)
    tokens = library.tokens(behind)
    picture = looped_picture_rows(library, method, record.image)
    words = [library.embedded(library.tokens(before)), picture, library.embedded(tokens)]
    states = torch.cat([prompts[0], *words], dim=1)
    model = library.language.model
    positions = torch.arange(states.shape[1])[None]
    rotation = model.rotary_emb(states, positions)
    for number, layer in enumerate(model.layers):
        states = torch.cat([prompts[number], states[:, LENGTH:]], dim=1)
        states = layer(states, attention_mask=None, position_ids=positions, position_embeddings=rotation)
    return library.language.lm_head(model.norm(states))[0, LENGTH:], torch.tensor(tokens)


def looped_losses(library: LibraryPair, logits: Tensor, tokens: Tensor, answer: str) -> Tensor:
    """Returns the losses of the answer's tokens and of the token that ends its turn."""
    length = len(library.tokens(f"{answer}<|im_end|>"))
    ends = len(library.tokens("\n"))  # the template's words behind the answer's turn
    first = len(tokens) - length - ends
    answered = tokens[first : first + length]
    assert library.tokenizer.decode(answered) == f"{answer}<|im_end|>"
    rows = logits[len(logits) - len(tokens) + first - 1 :][:length]
    return cross_entropy(rows, answered, reduction="none")


def gradients(method: M2PT, losses: Tensor) -> dict[str, Tensor]:
    method.zero_grad()
    losses.sum().backward()
    return {name: each.grad.clone() for name, each in method.named_parameters()}


def assert_alike(
    backbone: TowerAndDecoder, library: LibraryPair, asked: list, std: float, outputs: float, gradient: float
) -> None:
    """Compares logits, losses and every gradient of the ways with the loop's, relative to the largest number."""
    method = built(backbone, std)
    looped = [looped_logits(library, method, record) for record in asked]
    of_each = [looped_losses(library, *one, record.answer) for one, record in zip(looped, asked, strict=True)]
    losses = torch.cat(of_each)
    expected = gradients(method, losses)
    batch = batch_of(backbone, [sample(record) for record in asked])
    for path, shortcuts in WAYS:
        method.path = path
        method.attach(backbone)
        with torch.no_grad():
            output = backbone(batch)
            logits = backbone.logits(output.hidden_states)
        for own, (wanted, _) in zip(logits, looped, strict=True):
            assert relative(own[: len(wanted)], wanted) < outputs
        assert int((output.labels != IGNORED_LABEL).sum()) == len(losses)
        found = supervised_rows(backbone, batch, shortcuts).losses
        assert relative(found, losses) < outputs
        own = gradients(method, found)
        method.detach(backbone)
        assert own.keys() == expected.keys() >= {"interaction.weight", "interaction.bias"}
        for name, wanted in expected.items():
            assert float(wanted.abs().max()) > 0
            assert relative(own[name], wanted) < gradient, (path, name)


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("std", [0.1, 0.3])
def test_logits_losses_and_gradients_in_float32(backbone: TowerAndDecoder, library: LibraryPair, std: float) -> None:
    """Two samples of different length; rounding is made thirty times larger where prompts stand first."""
    asked = first_of_each(records(2, 1), 2)
    assert_alike(backbone, library, asked, std, outputs=1e-4, gradient=1e-3)


def test_logits_losses_and_gradients_in_float64(projector, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the library's float32 islands replaced nothing is left but rounding in float64."""
    backbone, library = loaded_pair(projector, "float64"), library_pair(projector, torch.float64)
    with float64_islands(monkeypatch, backbone, library.tower, library.language):
        assert_alike(backbone, library, records(1, 1), 0.3, outputs=1e-12, gradient=1e-11)
