"""The arithmetic of several devices: by hand at round numbers."""

import pytest

from lightning_m2pt.parallel.costs import Devices, Model, Unit, all_sharing, gathered_bytes, held_bytes, sent_bytes

MODEL = Model((Unit(100, has_backward=False), Unit(400), Unit(400), Unit(120)), kept=8, trained=10)


def test_under_ddp_only_gradients_are_sent() -> None:
    devices = all_sharing("ddp", 4)
    assert sent_bytes(MODEL, devices, micro_batches=7).gathers == 0
    assert sent_bytes(MODEL, devices).reductions == 2 * 3 * 10 * 4 // 4
    held = held_bytes(MODEL, devices)
    assert (held.base, held.in_flight, held.trained) == (1028, 0, 160)


def test_fsdp2_gathers_for_every_micro_batch_and_reduces_once() -> None:
    devices = all_sharing("fsdp2", 4)
    passes = 2 * (100 + 400 + 400 + 120)  # the first one is gathered again, behind its neighbour's gradient
    assert sent_bytes(MODEL, devices, micro_batches=3).gathers == 3 * passes * 3 // 4
    assert sent_bytes(MODEL, devices, micro_batches=3).reductions == 60
    held = held_bytes(MODEL, devices)
    assert (held.base, held.in_flight, held.trained) == (8 + 1020 // 4, 1200, 160)
    assert held_bytes(MODEL, all_sharing("fsdp2", 8)).base == 8 + 128  # of 1020 bytes the first devices hold more


def test_what_no_gradient_comes_near_is_gathered_once() -> None:
    units = (Unit(7, has_backward=False), Unit(50, has_backward=False), Unit(300), Unit(11, has_backward=False))
    assert gathered_bytes(units) == 7 + 2 * 50 + 2 * 300 + 11
    assert gathered_bytes(()) == 0


def test_in_nodes_the_base_is_gathered_from_neighbours_alone() -> None:
    devices = Devices("fsdp2", 16, sharing=4)
    assert held_bytes(MODEL, devices).base == held_bytes(MODEL, all_sharing("fsdp2", 4)).base
    sent = sent_bytes(MODEL, devices)
    assert sent.gathers == sent_bytes(MODEL, all_sharing("fsdp2", 4)).gathers
    assert sent.reductions == 2 * 15 * 40 // 16


def test_deepspeed_shares_out_what_is_updated() -> None:
    assert held_bytes(MODEL, all_sharing("zero2", 4)).base == 1028
    assert held_bytes(MODEL, all_sharing("zero2", 4)).trained == 80 + 120 // 4
    assert sent_bytes(MODEL, all_sharing("zero2", 4)).total == 3 * 3 * 40 // 4
    assert sent_bytes(MODEL, all_sharing("zero2", 4), micro_batches=5).total == 11 * 3 * 40 // 4
    held = held_bytes(MODEL, all_sharing("zero3", 4))
    assert (held.base, held.trained) == (8 + 1020 // 4, 80 + 120 // 4)
    assert held.in_flight == 2 * 1020 + 4 * 2**24  # all of it stays, and is gathered ahead
    sent = sent_bytes(MODEL, all_sharing("zero3", 4), micro_batches=2)
    assert sent.gathers == (2 * 1020 + 40) * 3 // 4  # so small a base stays gathered between the passes
    assert sent.reductions == 2 * 40 * 3 // 4


def test_deepspeed_gathers_again_what_it_cannot_keep() -> None:
    model = Model((Unit(3 * 10**9), Unit(2 * 10**9)), kept=0, trained=10)
    assert sent_bytes(model, all_sharing("zero3", 2)).gathers == (5 * 10**9 + 3 * 10**9 + 40) // 2
    assert held_bytes(model, all_sharing("zero3", 2)).in_flight == 2 * 10**9 + 10**8 + 4 * 2**24


@pytest.mark.parametrize("engine", ["ddp", "fsdp2", "zero2", "zero3"])
def test_one_device_sends_nothing(engine) -> None:
    assert sent_bytes(MODEL, all_sharing(engine, 1), micro_batches=5).total == 0
    assert held_bytes(MODEL, all_sharing(engine, 1)).in_flight == 0


@pytest.mark.parametrize(("engine", "number", "sharing"), [("fsdp2", 6, 4), ("ddp", 4, 2), ("zero2", 4, 4)])
def test_what_cannot_be_is_refused(engine, number, sharing) -> None:
    with pytest.raises(ValueError, match=r"devices are no whole|whole base"):
        Devices(engine, number, sharing)
