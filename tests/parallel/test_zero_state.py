"""What each rank takes over of an optimizer's state that was saved whole."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_m2pt.parallel import zero_state

MOMENT = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])


@pytest.mark.parametrize(
    ("rank", "share"), [(0, [1.0, 2.0, 3.0, 4.0, 5.0]), (1, [6.0, 7.0, 8.0, 9.0, 0.0])], ids=["first", "last"]
)
def test_a_rank_of_stage_3_takes_its_part_of_a_moment_and_pads_as_deepspeed_does(
    rank: int, share: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    import deepspeed.utils

    taken: list[tuple[torch.Tensor, str]] = []
    monkeypatch.setattr(
        deepspeed.utils, "safe_set_local_optimizer_state", lambda _, part, key: taken.append((part, key))
    )
    monkeypatch.setattr(zero_state.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(zero_state.dist, "get_rank", lambda: rank)
    parameter = nn.Parameter(torch.empty(0))
    parameter.ds_tensor = torch.empty(5)  # type: ignore[attr-defined]  # nine numbers over two ranks
    zero_state.set_moment(parameter, MOMENT, "exp_avg")
    [(part, key)] = taken
    assert part.tolist() == share
    assert key == "exp_avg"


def test_a_state_that_is_saved_does_not_move_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import deepspeed.utils

    monkeypatch.setattr(deepspeed.utils, "safe_get_full_optimizer_state", lambda tensor, key: (tensor, key))
    pieces, steps = [torch.zeros(2), torch.zeros(3)], [torch.tensor(4.0), torch.tensor(4.0)]
    optimizer = SimpleNamespace(
        param_groups=[{"lr": 0.1, "params": [pieces[0]]}, {"lr": 0.2, "params": [pieces[1]]}],
        state={piece: {"step": step} for piece, step in zip(pieces, steps, strict=True)},
    )
    zero = SimpleNamespace(optimizer=optimizer, single_partition_of_fp32_groups=pieces)
    tensors = [[nn.Parameter(MOMENT), nn.Parameter(MOMENT)], [nn.Parameter(MOMENT)]]
    saved = zero_state.whole_optimizer_state(zero, tensors)
    for step in steps:
        step += 1
    assert {number: float(each["step"]) for number, each in saved["state"].items()} == {0: 4.0, 1: 4.0, 2: 4.0}
    assert saved["state"][2]["exp_avg_sq"] == (tensors[1][0], "exp_avg_sq")
    assert saved["param_groups"] == [{"lr": 0.1, "params": [0, 1]}, {"lr": 0.2, "params": [2]}]


def test_what_is_trained_is_gathered_now_after_every_step_and_is_not_given_up() -> None:
    gathered: list[list[SimpleNamespace]] = []
    first, second = (SimpleNamespace(ds_persist=False, all_gather=gathered.append) for _ in range(2))
    zero = SimpleNamespace(persistent_parameters=["another's"])
    zero_state.keep_whole(zero, [[first], [second]])  # type: ignore[list-item]
    assert (first.ds_persist, second.ds_persist) == (True, True)
    assert zero.persistent_parameters == ["another's", first, second]
    assert gathered == [[first, second]]
