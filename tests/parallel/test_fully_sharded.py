"""A base that is shared out among ranks trains what one device trains: every gradient of every step."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.inputs.batch import IGNORED_LABEL, Batch
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.parallel.fully_sharded import FullyShardedStrategy
from lightning_m2pt.testing.random_backbone import TEXT_LAYERS, VISION_LAYERS, random_backbone, random_batch
from lightning_m2pt.tuning.module import TuningModule
from tests.support.small_training import one_step
from tests.support.strategies.sharded_training import Make, Steps, Trained, attach_built, compare, on_both, sharded

TOLERANCE = 1e-6
"""In float64 the library's norms and rotary tables still round as float32 does."""


def m2pt() -> Method:
    return M2PT(3, 4, init="normal", init_std=0.5)


def made(folder: Path, method: Callable[[], Method] = m2pt, *, recomputes: bool = False) -> Make:
    def make() -> tuple[Backbone, Method]:
        backbone = random_backbone(folder, torch.float64)
        if recomputes:
            backbone.recompute_activations(True)
            backbone.finish()
        return backbone, method()

    return make


def test_pixels_in_front_of_shared_out_weights_train_what_one_device_trains(tmp_path: Path) -> None:
    """The prompt stands outside of all that is shared out, and its inside stays where it is."""
    found, expected = on_both(made(tmp_path, lambda: PixelPrompting(0.2, init_std=0.2)), steps_of(2))
    compare(found, expected, TOLERANCE)
    [delta] = found.tensors.values()
    assert not delta[:, 3:-3, 3:-3].any()
    assert delta[:, :3].all()


def without_picture(batch: Batch) -> Batch:
    ids = torch.where(batch.input_ids < 0, 3, batch.input_ids)
    return replace(batch, pixel_values=batch.pixel_values[:0], input_ids=ids)


def without_answers(batch: Batch) -> Batch:
    return replace(batch, labels=torch.full_like(batch.labels, IGNORED_LABEL))


def steps_of(number: int, micro_batches: int = 2) -> Steps:
    batches = [random_batch(seed=seed, dtype=torch.float64) for seed in range(number * micro_batches)]
    return [one_step(batches[at : at + micro_batches]) for at in range(0, len(batches), micro_batches)]


def check_counts(found: Trained) -> None:
    units = VISION_LAYERS - 1 + 1 + TEXT_LAYERS + 1  # used blocks, embedding, layers, head
    assert found.share == pytest.approx(0.5, abs=0.05)
    assert found.most_whole <= 2  # the one that computes, and the next one
    # Forward all units, backward all that a gradient passes, and the embedding, which stands in front of such a one.
    # One more in the first backward pass, whose order begins with what the passes before training ended with.
    assert 0 <= len(found.gathered) - len(found.gradients) * 2 * units <= 1


def test_two_ranks_with_half_of_the_base_each_train_what_one_device_trains(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found, expected = on_both(made(tmp_path), steps_of(4))
    compare(found, expected, TOLERANCE)
    check_counts(found)
    said = " ".join(capfd.readouterr().out.split())
    assert said.count("8 layers among 2 devices; prompts stand in the sequence (token path)") == 1


def keeping() -> FullyShardedStrategy:
    return FullyShardedStrategy(reshard_after_forward=False, process_group_backend="gloo")


def test_layers_that_are_not_given_up_in_between_train_the_same_and_are_gathered_once(tmp_path: Path) -> None:
    found, expected = on_both(made(tmp_path), steps_of(2), strategy=keeping)
    compare(found, expected, TOLERANCE)
    units = VISION_LAYERS - 1 + 1 + TEXT_LAYERS + 1
    assert found.most_whole == units
    assert len(found.gathered) <= 2 * (units + 1)  # and the embedding, which stands in front of what has a gradient


def test_ranks_without_pictures_or_answers_run_the_same_layers(tmp_path: Path) -> None:
    """Each of them would otherwise leave the other waiting, in the tower or behind the head."""
    (first, second), (third, fourth), (fifth, sixth) = steps_of(3)
    steps = [
        one_step([without_picture(first), second]),
        one_step([third, without_answers(fourth)]),
        one_step([fifth, without_picture(without_answers(sixth))]),
    ]
    found, expected = on_both(made(tmp_path), steps)
    compare(found, expected, TOLERANCE)


def test_every_rank_begins_with_the_tensors_of_the_first_one(tmp_path: Path) -> None:
    """A method may draw from what differs between them; SameOnAllRanks would end this otherwise."""

    def make() -> tuple[Backbone, Method]:
        spread = 0.5 if os.environ["RANK"] == "0" else 0.25
        return random_backbone(tmp_path, torch.float64), M2PT(3, 4, init="normal", init_std=spread)

    found, expected = on_both(make, steps_of(1))
    compare(found, expected, TOLERANCE)


def test_a_method_that_is_attached_again_takes_the_path_of_shared_out_weights(tmp_path: Path) -> None:
    backbone, method = made(tmp_path)()
    attach_built(TuningModule(backbone, method))
    assert backbone.attachment.path == "auto"
    backbone.runs_in_lockstep = True
    method.attach(backbone)
    assert backbone.attachment.path == "token"


def test_devices_of_all_nodes_share_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelParallelStrategy, "setup_environment", lambda _: None)
    strategy = sharded()
    strategy.parallel_devices, strategy.num_nodes = [torch.device("cpu")] * 4, 2
    strategy.setup_environment()
    assert strategy._data_parallel_size == 8


METHODS: dict[str, Callable[[], Method]] = {
    "vpt": lambda: M2PT(3, 0, interaction=False, visual_rows_to_text="none", init="normal", init_std=0.5),
    "ptum": lambda: M2PT(0, 4, interaction=False, init="normal", init_std=0.5),
    "m2pt_all_rows": lambda: M2PT(3, 4, visual_rows_to_text="all", lm_head=True, init="normal", init_std=0.5),
    "ptum_prefix": lambda: PrefixTuning(3),
    "lora": lambda: Lora(2, dropout=0.0, vision=True),
    "aprompt": lambda: APrompt(3, 2),
    "adapter": lambda: Adapter(4),
    "layer_norm": lambda: LayerNormTuning(vision=True),
    "pixels": lambda: PixelPrompting(0.2, init_std=0.2),
    "pixels around and prompts": lambda: Combined([PixelPrompting(0.2, "shrink"), M2PT(3, 4, init_std=0.5)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("recomputes", [False, True], ids=["kept", "recomputed"])
def test_every_method(tmp_path: Path, name: str, recomputes: bool) -> None:
    found, expected = on_both(made(tmp_path, METHODS[name], recomputes=recomputes), steps_of(4, micro_batches=4))
    compare(found, expected, TOLERANCE)
