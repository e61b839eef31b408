"""What each rank takes over of an optimizer's state that was saved whole."""

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
