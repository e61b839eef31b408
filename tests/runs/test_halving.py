"""Successive halving: which candidate is measured on what, and which one is left."""

from experiments.runs.halving import Rung, Sums, halved, rounds


def test_rounds_have_half_the_candidates_on_twice_the_samples() -> None:
    assert rounds(2, 10) == [(2, 10)]
    assert rounds(3, 10) == [(3, 5), (2, 10)]
    assert rounds(8, 100) == [(8, 25), (4, 50), (2, 100)]
    assert rounds(10, 64) == [(10, 8), (5, 16), (3, 32), (2, 64)]
    assert rounds(5, 9) == [(5, 3), (3, 5), (2, 9)]
    assert rounds(8, 2) == [(8, 1), (4, 1), (2, 2)]


def test_the_worse_half_is_left_out_and_no_sample_is_measured_twice() -> None:
    """The losses of each candidate, sample by sample: c is best at first, b in the end, and a is as good as d."""
    losses = {"a": [2, 2, 9, 9], "b": [1, 1, 1, 1], "c": [0, 2, 3, 3], "d": [2, 2, 0, 0]}
    asked: list[tuple[str, int]] = []

    def measure(name: str, places: range) -> Sums:
        asked.extend((name, place) for place in places)
        return Sums(float(sum(losses[name][place] for place in places)), 2 * len(places), 1, len(places), 5)

    seen: list[Rung] = []
    rungs = halved(list(losses), 4, measure, seen.append)
    assert rungs == seen
    assert [(rung.samples, list(rung.measured), rung.kept) for rung in rungs] == [
        (2, ["a", "b", "c", "d"], ("b", "c")),
        (4, ["b", "c"], ("b",)),
    ]
    assert len(asked) == len(set(asked)) == 4 * 2 + 2 * 2
    assert rungs[-1].measured["c"] == Sums(8.0, 8, 2, 4, 10)
    assert (rungs[-1].measured["c"].mean_loss, rungs[-1].measured["c"].accuracy) == (1.0, 0.5)


def test_of_equal_candidates_the_first_named_is_kept() -> None:
    rungs = halved(["late", "early"], 3, lambda _, places: Sums(1.0, 1, 0, len(places), 1), lambda _: None)
    assert rungs[-1].kept == ("late",)


def test_of_an_odd_number_the_larger_half_goes_on() -> None:
    rungs = halved(list("abc"), 3, lambda name, places: Sums(float(ord(name)), 1, 0, len(places), 1), lambda _: None)
    assert [(rung.samples, rung.kept) for rung in rungs] == [(2, ("a", "b")), (3, ("a",))]
