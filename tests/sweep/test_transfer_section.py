"""The section ``transfer`` of a sweep's file: what is trained where, whose rates it has, and what is refused."""

import typing
from pathlib import Path

import pytest
import yaml

from experiments.commands.parsers.evaluate import UNCALIBRATED
from experiments.sweep.file import find_sweep, read_sweep
from experiments.sweep.jobs import SweepSettings, cells, check_backbone
from experiments.sweep.search import VariantSearch, check_borrowed, chosen_rates, without_rates
from experiments.sweep.transfer_section import ANSWERS
from lightning_m2pt.answering.decoding import AnsweringMethod
from lightning_m2pt.errors import BadInputError

ROOT = Path(__file__).parents[2]
PARTS = f"{ROOT}/experiments/parts"
TEXT = f"""
seeds: [0, 1]
transfer:
  answer: likelihood_sum
  bases: {{A: {ROOT}/experiments/backbones/testbed.yaml, B: {ROOT}/experiments/backbones/testbed_patch12.yaml}}
  sets: {{cifar10: {PARTS}/prompting_cifar10.yaml, mnist: {PARTS}/prompting_mnist.yaml}}
  search_on: cifar10
  random_like: two
  rows:
    - {{label: one, config: projector, arguments: {{trainer.max_steps: 6}}}}
    - label: two
      config: {{A: projector, B: [projector, {PARTS}/prompting_fca.yaml]}}
      sets: [mnist]
      seeds: [5]
      rates_of: one
  means: [{{row: one, set: cifar10}}]
search: {{trials: 2, share_of_steps: 1/2, seed: 0, ranges: {{"*": [1e-4, 1e-2]}}}}
"""


@pytest.fixture(autouse=True)
def from_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_every_row_is_trained_on_every_set_and_base(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, TEXT))
    plan = sweep.transfer
    assert plan is not None
    assert plan.seeds == [0, 1, 5]
    assert plan.means == (("one", "cifar10"),)
    assert [(variant.label, variant.rates_of, variant.seeds) for variant in sweep.variants] == [
        ("one cifar10 A", "", (0, 1)),
        ("one cifar10 B", "", (0, 1)),
        ("one mnist A", "one cifar10 A", (0, 1)),
        ("one mnist B", "one cifar10 B", (0, 1)),
        ("two mnist A", "one cifar10 A", (5,)),
        ("two mnist B", "one cifar10 B", (5,)),
    ]
    names = [[path.stem for path in variant.configs] for variant in sweep.variants]
    assert names[0] == ["projector", "prompting_cifar10", "testbed"]
    assert names[5] == ["projector", "prompting_fca", "prompting_mnist", "testbed_patch12"]
    assert len(cells(sweep, SweepSettings())) == 10


def test_a_row_without_the_set_that_is_searched_is_searched_by_itself_and_a_set_is_one(tmp_path: Path) -> None:
    text = TEXT.replace("      rates_of: one\n", "").replace("sets: [mnist]", "sets: [mnist, mnist]")
    variants = read_sweep(written(tmp_path, text)).variants
    assert [(each.label, each.rates_of) for each in variants[4:]] == [("two mnist A", ""), ("two mnist B", "")]


def test_rates_are_those_of_the_set_that_was_searched(tmp_path: Path) -> None:
    variants = read_sweep(written(tmp_path, TEXT)).variants
    first, second = (VariantSearch(each, "", {"x": 1.0}, 3, [{"x": 1.0}, {"x": 2.0}], []) for each in variants[:2])
    searches = {"one cifar10 A": first, "one cifar10 B": second}
    assert [each.label for each in without_rates(variants, {"one cifar10 A": 1})] == [
        "one cifar10 B",
        "one mnist B",
        "two mnist B",
    ]
    rates = chosen_rates(variants, searches, {"one cifar10 A": 1, "one cifar10 B": 0})
    assert rates == {
        "one cifar10 A": {"x": 2.0},
        "one mnist A": {"x": 2.0},
        "two mnist A": {"x": 2.0},
        # Stated in the lender's file; the borrower's may state another one.
        "one mnist B": {"x": 1.0},
        "two mnist B": {"x": 1.0},
    }
    more = VariantSearch(variants[0], "", {"x": 1.0, "y": 1.0}, 3, [], [])
    check_borrowed(variants[2], {"x": 5.0}, ["x"], first)
    check_borrowed(variants[2], {"x": 5.0}, ["x", "y", "z"], more)
    for stated, possible, lender in (
        ({"x": 5.0, "y": 5.0}, ["x", "y"], first),
        ({"y": 5.0}, ["x", "y"], first),
        ({"x": 5.0}, ["x"], more),
    ):
        expected = f"has rates of {', '.join(stated)}, 'one cifar10 A' of {', '.join(lender.stated)}\n"
        with pytest.raises(BadInputError, match=expected):
            check_borrowed(variants[2], stated, possible, lender)


WRONG = {
    "one base": (f", B: {ROOT}/experiments/backbones/testbed_patch12.yaml", "", "one base"),
    "unknown answer": ("likelihood_sum", "likelihood", "one of greedy, likelihood_sum, likelihood_mean"),
    "unknown set": ("sets: [mnist]", "sets: [pope]", "'pope' is none"),
    "search elsewhere": ("search_on: cifar10", "search_on: pope", "'pope' is none"),
    "random of nothing": ("random_like: two", "random_like: three", "'three' is none"),
    "mean of nothing": ("{row: one, set: cifar10}", "{row: two, set: cifar10}", "two is not trained on cifar10"),
    "files of one base": ("{A: projector, B: [", "{C: projector, B: [", "one for each of A, B"),
    "rates of nothing": ("rates_of: one", "rates_of: three", "has no search of its own"),
    "cells beside it": ("seeds: [0, 1]", "seeds: [0, 1]\ncells: [{label: a, config: projector}]", "are both here"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    old, new, said = WRONG[name]
    assert TEXT.count(old) == 1
    with pytest.raises(BadInputError) as caught:
        read_sweep(written(tmp_path, TEXT.replace(old, new)))
    assert str(tmp_path / "mine.yaml") in caught.value.where
    assert said in f"{caught.value.what} {caught.value.expected}"


def test_another_backbone_is_refused_where_the_file_names_bases(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="take the place of A, B"):
        check_backbone("testbed", read_sweep(written(tmp_path, TEXT)))


def test_the_ways_to_answer_are_those_of_a_transfer() -> None:
    assert UNCALIBRATED == ANSWERS
    assert set(ANSWERS) <= set(typing.get_args(AnsweringMethod))


def test_the_shipped_matrix_has_a_teacher_of_its_own_on_every_base() -> None:
    sweep = read_sweep(find_sweep("prompt_transfer"))
    assert sweep.transfer is not None
    assert len(cells(sweep, SweepSettings())) == 88
    assert len([variant for variant in sweep.variants if not variant.rates_of]) == 10
    for cell in sweep.transfer.cells:
        texts = [yaml.safe_load(path.read_text()) for path in cell.variant.configs]
        terms = [text["model"]["regularisers"] for text in texts if "regularisers" in text.get("model", {})]
        for term in terms[-1] if terms else []:
            if "teacher" in term["init_args"]:
                own = "${embedded:" + sweep.transfer.bases[cell.base].stem + "}"
                assert term["init_args"]["teacher"]["init_args"]["folder"] == own
