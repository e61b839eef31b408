"""Under ZeRO 3 a process reads its pieces of a base alone, and never holds more than them and one tensor."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.backbones.filling import unfilled
from lightning_m2pt.backbones.filling.shares import share_of
from lightning_m2pt.backbones.shortcuts import EVERY_ROW
from lightning_m2pt.backbones.weight_files import Portion, Stored, read_portions
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.parallel.zero_shares import PieceOfZero, rows_of_piece, share_out_units
from lightning_m2pt.testing.random_backbone import random_batch
from lightning_m2pt.tuning import self_test
from lightning_m2pt.tuning.module import TuningModule
from tests.support.ranks import on_ranks
from tests.support.small_training import loader_of, one_step, small_trainer
from tests.support.stored_backbone import store_backbone, stored
from tests.support.strategies.cpu_zero import CpuZeroStrategy
from tests.support.strategies.sharded_training import local_share

METHODS: dict[str, Callable[[], Method]] = {
    "prompts and head": lambda: M2PT(2, 2, init="vocabulary", lm_head=True, path="token"),
    "norms": LayerNormTuning,
    "LoRA": lambda: Lora(dropout=0.0),
}
STEPS = 2


@pytest.mark.parametrize(
    ("shape", "ranks", "rows"),
    [
        ((4, 3), 2, [(0, 2), (2, 4)]),
        ((3, 3), 2, [(0, 2), (1, 3)]),  # five numbers and four: the second row is in both
        ((7,), 3, [(0, 3), (3, 6), (6, 7)]),
        ((2,), 3, [(0, 1), (1, 2), (2, 2)]),
        ((2, 2, 5), 4, [(0, 1), (0, 1), (1, 2), (1, 2)]),
    ],
)
def test_rows_that_a_piece_lies_in(shape: tuple[int, ...], ranks: int, rows: list[tuple[int, int]]) -> None:
    found = [rows_of_piece(shape, rank, ranks) for rank in range(ranks)]
    assert [(each.start, each.stop) for each in found] == rows


class Cutter:
    """What ``zero.Init`` is in the second of two processes; notes what it is given."""

    rank, dp_world_size, local_device = 1, 2, torch.device("cpu")

    def __init__(self) -> None:
        self.cut: list[nn.Parameter] = []

    def _convert_to_deepspeed_param(self, parameter: Any) -> None:
        self.cut.append(parameter)
        parameter.partition = lambda: None


def test_frozen_tensors_are_cut_once_trained_ones_never_and_those_without_numbers_when_they_are_read() -> None:
    unit, unread, cutter = nn.Linear(3, 4), nn.Linear(3, 3, bias=False, device="meta"), Cutter()
    for _ in range(2):
        share_out_units([unit, unread], [unit.bias], cutter)
    assert [id(each) for each in cutter.cut] == [id(unit.weight)]
    assert [each.requires_grad for each in (unit.weight, unit.bias, unread.weight)] == [False, True, False]
    assert share_of(unread.weight).rows == slice(1, 3)  # nine numbers: the piece begins inside of the second row


class Watched:
    """Sees what a process reads and holds while a base is loaded, and whether its passes were compared."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self.read, self.most, self.compared = backbone, 0, 0, 0
        put, compare = PieceOfZero.put, self_test.compare_training

        def watched(piece: PieceOfZero, owner: nn.Module, leaf: str, rows: Tensor) -> None:
            put(piece, owner, leaf, rows)
            self.most = max(self.most, sum(numbers_of(each) for each in backbone.parameters()))

        def reading(files: Stored, portions: dict[str, Portion], dtype: torch.dtype) -> Any:
            for name, tensor in read_portions(files, portions, dtype):
                self.read += tensor.numel()
                yield name, tensor

        def comparing(*given: Any) -> None:
            self.compared += 1
            compare(*given)

        PieceOfZero.put = watched  # type: ignore[method-assign]  # in this process, which ends
        unfilled.read_portions = reading
        self_test.compare_training = comparing


def numbers_of(parameter: nn.Parameter) -> int:
    """Returns how many numbers a process has of a parameter: of its piece, and of the whole where that is there."""
    piece = getattr(parameter, "ds_tensor", None)
    return (0 if parameter.is_meta else parameter.numel()) + (0 if piece is None else piece.numel())


def trained(folder: Path, name: str) -> tuple[dict[str, Any], int, int, float, int]:
    """Reads and trains; returns the tensors, numbers read and held at the most, the share kept, and comparisons."""
    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    torch.manual_seed(1)
    backbone = stored(folder)
    module = TuningModule(backbone, METHODS[name](), shortcuts=EVERY_ROW)
    backbone.runs_in_lockstep = True  # one process takes the passes of several
    watched = Watched(backbone)
    trainer = small_trainer(
        strategy=CpuZeroStrategy(3) if ranks > 1 else "auto",
        devices=ranks,
        max_steps=STEPS,
        accumulate_grad_batches=2 // ranks,
        use_distributed_sampler=False,
    )
    steps = [one_step([random_batch(seed=2 * step + part) for part in (0, 1)]) for step in range(STEPS)]
    trainer.fit(module, loader_of([step[part] for step in steps for part in range(rank, 2, ranks)]))
    tensors = {name: each.detach().numpy().copy() for name, each in module.method.named_tensors().items()}
    kept = local_share(backbone.sharding_units()) if ranks > 1 else 1.0
    return tensors, watched.read, watched.most, kept, watched.compared


@pytest.mark.parametrize(
    "name", ["prompts and head", *(pytest.param(each, marks=pytest.mark.slow) for each in ("norms", "LoRA"))]
)
def test_a_base_that_is_read_in_pieces_trains_what_one_process_trains(tmp_path: Path, name: str) -> None:
    store_backbone(tmp_path / "b")
    [(alone, whole, _, _, _)] = on_ranks(1, trained, tmp_path / "b", name)
    for together, read, most, kept, compared in on_ranks(2, trained, tmp_path / "b", name):
        assert read < 0.65 * whole  # norms outside of layers, the projector and other small parts are read by all
        assert 0 < most < 0.7 * whole
        assert kept == pytest.approx(0.5, abs=0.02)
        assert compared == 1
        assert together.keys() == alone.keys()
        for tensor, expected in alone.items():
            assert together[tensor] == pytest.approx(expected, rel=1e-4, abs=2e-6), tensor
