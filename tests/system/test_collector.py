"""The collector rests inside the block, and works again behind it."""

import gc
import weakref

import pytest

from lightning_m2pt.system.collector import without_collector


class Node:
    """An object that can refer to itself."""


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_the_collector_rests_inside_and_works_behind():
    frozen = gc.get_freeze_count()
    with without_collector():
        assert not gc.isenabled()
        with without_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen


def test_what_fails_inside_leaves_it_on():
    with pytest.raises(KeyError), without_collector():
        raise KeyError
    assert gc.isenabled()


def test_cycles_made_behind_the_block_are_collected():
    with without_collector():
        pass
    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    gc.collect()
    assert gone() is None


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with without_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
