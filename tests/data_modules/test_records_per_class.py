"""K records of every class, by value: which are chosen, what that does not touch, names, indexes and mixtures."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from data_modules.conversations import Conversations
from data_modules.mixture import Mixture
from data_modules.reading.records_per_class import chosen_of_each_class
from data_modules.vision_flan import VisionFlan
from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import deciding, later_settings, run_folder
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import Sample, Turn
from lightning_m2pt.testing.small_processor import small_processor
from tests.support.own_files import FORMS, name_of, write_pictures, written
from tests.support.small_experiment import fitted, small_words


def flan(folder: Path, **options: Any) -> VisionFlan:
    """Sixteen records of two tasks; of each task three are answered "no" and five "yes it is"."""
    VisionFlan.write_fake(folder)
    made = VisionFlan(str(folder), **{"template": "vicuna_v1", "batch_size": 4, "order_seed": 1, **options})
    made.connect(small_processor(8))
    return made


def ids(data: Any, part: int = 0) -> list[str]:
    return [sample.id for sample in data.read_once()[part]]


def classes(data: Any) -> Counter[tuple[str, str]]:
    return Counter((sample.tasks[0], sample.turns[0].answer) for sample in data.read_once()[0])


def talk(name: str, answer: str = "", task: str = "a") -> Sample:
    return Sample(name, None, "", (Turn("What?", answer),), (task,), f"f: {name}")


def test_every_class_has_so_many_in_the_order_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, two = flan(tmp_path), flan(tmp_path, per_class=2)
    assert set(classes(whole).values()) == {3, 5}
    assert classes(two) == dict.fromkeys(classes(whole), 2)
    assert [name for name in ids(whole) if name in ids(two)] == ids(two)
    assert "note: 2 records of each answer, seed 0: 8 of 16 are trained on" in capsys.readouterr().out
    assert len(two.train_texts) == 0
    two.check()
    assert (len(two.train_texts), two.steps_in_set(), two.epoch_size) == (8, 2, 8)


def test_which_are_chosen_is_this_for_ever() -> None:
    """It stands in no name but by the records themselves: another choice would be another run."""
    samples = [talk(f"{number}/x", "yes" if number % 2 else "no") for number in range(12)]
    chosen = {seed: [each.id for each in chosen_of_each_class(samples, 2, "answer", seed, "")[0]] for seed in (0, 1)}
    assert chosen == CHOSEN
    sizes = [{each.id for each in chosen_of_each_class(samples, count, "answer", 0, "")[0]} for count in range(1, 7)]
    assert all(less < more for less, more in pairwise(sizes))
    alone = chosen_of_each_class([each for each in samples if each.turns[0].answer == "no"], 2, "answer", 0, "")[0]
    assert [each.id for each in alone] == [name for name in CHOSEN[0] if int(name.split("/")[0]) % 2 == 0]
    assert [each.id for each in chosen_of_each_class(samples[::-1], 2, "answer", 0, "")[0]] == CHOSEN[0][::-1]


CHOSEN = {0: ["1/x", "5/x", "8/x", "10/x"], 1: ["1/x", "7/x", "8/x", "10/x"]}


def test_a_class_is_a_task_or_an_answer_of_a_task(tmp_path: Path) -> None:
    tasks = [sample.tasks[0] for sample in flan(tmp_path, per_class=4, per_class_of="task").read_once()[0]]
    assert Counter(tasks) == {"fake+task_0": 4, "fake+task_1": 4}
    equal = [talk("1", "no", "a"), talk("2", "no", "b"), talk("3", "no", "b")]
    assert len(chosen_of_each_class(equal, 1, "answer", 0, "")[0]) == 2
    assert len(chosen_of_each_class(equal, 1, "task", 0, "")[0]) == 2
    assert len(chosen_of_each_class([talk("1", "no"), talk("2", "yes")], 1, "answer", 0, "")[0]) == 2


def test_what_is_validated_on_stays(tmp_path: Path) -> None:
    whole, some = (flan(tmp_path, validation_fraction=0.5, per_class=count) for count in (None, 1))
    assert ids(some, 1) == ids(whole, 1) != []
    assert set(ids(some)) < set(ids(whole))


def test_questions_of_one_picture_are_joined_behind_the_choice(tmp_path: Path) -> None:
    joined = flan(tmp_path, per_class=3, questions_per_sample=2)
    turns = [turn for sample in joined.read_once()[0] for turn in sample.turns]
    assert len(turns) == 12
    assert len(joined.read_once()[0]) < 12


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "none": ({"per_class": 0}, ["data.per_class: 0 records of each class"]),
    "too many": (
        {"per_class": 4},
        [
            "data.per_class: vision_flan: 2 of 4 classes have fewer than 4 records",
            "'no' of fake+task_",
            "has 3",
            "task",
        ],
    ),
    "too many of a task": (
        {"per_class": 9, "per_class_of": "task"},
        ["2 of 2 classes have fewer than 9 records: the smallest, fake+task_", "at most 8"],
    ),
    "a seed of nothing": ({"per_class_seed": 3}, ["data.per_class_seed: 3 says how some records"]),
    "a class of nothing": ({"per_class_of": "task"}, ["data.per_class_of: task says how some records"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_its_name(tmp_path: Path, case: str) -> None:
    options, sentences = REFUSED[case]
    with pytest.raises(BadInputError) as refused:
        flan(tmp_path, **options).check()
    text = str(refused.value)
    assert len(text.splitlines()) in (2, 3)
    for sentence in sentences:
        assert sentence in text


def test_an_answer_of_several_is_no_class_and_a_task_is(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}] * 2
    write_pictures(tmp_path)
    file = written(tmp_path / "a.json", json.dumps([{"image": name_of(0), "conversations": turns}] * 2))
    for of, ends in (("answer", "has 2 answers, and a class is one"), ("task", "")):
        made = Conversations(str(file), "vicuna_v1", 1, per_class=1, per_class_of=of)  # type: ignore[arg-type]
        made.connect(small_processor(8))
        if not ends:
            assert len(ids(made)) == 1
            continue
        with pytest.raises(BadInputError, match=ends):
            made.check()


def test_a_file_of_ones_own_and_a_mixture(tmp_path: Path) -> None:
    write, needed = FORMS["csv"]
    own = {"template": "vicuna_v1", "batch_size": 4, **needed}
    one = Conversations(str(write(tmp_path / "own")), per_class=5, per_class_of="task", **own)
    other = VisionFlan(str(tmp_path / "flan"), "vicuna_v1", 4, per_class=2, per_class_seed=7)
    VisionFlan.write_fake(tmp_path / "flan")
    mixed = Mixture([one, other], "vicuna_v1", 4, order_seed=3)
    mixed.connect(small_processor(8))
    mixed.check()
    names = Counter(name.partition("/")[0] for name in ids(mixed))
    assert names == {one.set_name: 5, "vision_flan": 8}
    assert mixed.counts == (5, 8)


def test_an_index_belongs_to_its_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"index_folder": str(tmp_path / "index")}
    read = {
        (count, seed): flan(tmp_path / "set", per_class=count, per_class_seed=seed, **kept)
        for count, seed in ((None, 0), (1, 0), (2, 0), (2, 1))
    }
    found = {key: (ids(data), data.fingerprint(), data.notes) for key, data in read.items()}
    assert len({fingerprint for _, fingerprint, _ in found.values()}) == 4
    monkeypatch.setattr(VisionFlan, "read", lambda _: pytest.fail("not from the index"))
    for (count, seed), expected in found.items():
        again = flan(tmp_path / "set", per_class=count, per_class_seed=seed, **kept)
        assert (ids(again), again.fingerprint(), again.notes) == expected


class OwnFlan(VisionFlan):
    """Somebody's own, made of ours."""


def test_it_is_part_of_a_runs_name_and_names_of_before_stay(tmp_path: Path) -> None:
    words = small_words(tmp_path)
    plain, none = (parse_experiment([*words, *more]) for more in ([], ["--data.per_class=null"]))
    assert not {key for key in deciding(plain)["data"]["init_args"] if key.startswith("per_class")}
    assert run_folder(plain) == run_folder(none)
    some = [["--data.per_class=2"], ["--data.per_class=2", "--data.per_class_seed=1"], ["--data.per_class=3"]]
    named = [parse_experiment([*words, *more]) for more in some]
    assert deciding(named[1])["data"]["init_args"]["per_class_seed"] == 1
    assert len({run_folder(each).name for each in (plain, *named)}) == 4
    ours = later_settings(f"{VisionFlan.__module__}.VisionFlan")
    assert {**ours, "index": True} == ours
    assert ours["per_class"] is None
    theirs = later_settings(f"{__name__}.OwnFlan")
    assert theirs == {"per_class": None, "per_class_of": "answer", "per_class_seed": 0}


def test_a_run_trains_on_the_chosen_records_alone(tmp_path: Path) -> None:
    experiment, _ = fitted([*small_words(tmp_path, batch_size=4, steps=5), "--data.per_class=2"])
    taken = {name for name in ids(experiment.data)}
    assert len(taken) == 8
    assert [len(batch) for batch in experiment.data.train_dataloader()] == [4, 4]
    seen = {name for batch in experiment.data.train_dataloader() for name in batch.sample_ids}
    assert seen == taken
