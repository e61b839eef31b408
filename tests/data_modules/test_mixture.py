"""Sets mixed with weights or sizes: what an epoch takes, by value; a stopped run goes on bit for bit."""

import csv
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import load_file

from data_modules.conversations import Conversations
from data_modules.instruction import InstructionDataModule
from data_modules.mixture import Mixture, shared_out
from data_modules.vision_flan import VisionFlan
from experiments.commands.fit import fit
from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import run_folder
from experiments.runs.prepare import connect_experiment
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.testing.small_processor import small_processor
from lightning_m2pt.tuning.sample_order import Shares, order_of, samples_of_steps
from tests.support.own_files import FORMS, written
from tests.support.small_experiment import fitted, small_words
from tests.tuning.test_training import StopAtStep

SETTINGS: dict[str, Any] = {"template": "vicuna_v1", "batch_size": 4}


def flan(folder: Path, **options: Any) -> VisionFlan:
    VisionFlan.write_fake(folder)
    return VisionFlan(str(folder), **{**SETTINGS, **options})


def own(folder: Path, **options: Any) -> Conversations:
    write, needed = FORMS["csv"]
    return Conversations(str(write(folder)), **{**SETTINGS, **needed, **options})


def mixed(*sets: InstructionDataModule, **options: Any) -> Mixture:
    made = Mixture(list(sets), **{**SETTINGS, "order_seed": 3, **options})
    made.connect(small_processor(8))
    return made


def test_an_epoch_goes_on_in_a_part_where_the_one_before_stopped() -> None:
    shares = Shares(sizes=(5, 3), taken=(2, 4))
    epochs = [order_of(7, epoch, shares) for epoch in range(15)]
    assert all(len(epoch) == 6 and (epoch < 5).sum() == 2 for epoch in epochs)
    assert Counter(numpy.concatenate(epochs).tolist()) == {
        **dict.fromkeys(range(5), 6),
        **dict.fromkeys(range(5, 8), 20),
    }
    first = [shares.positions(7, epoch) for epoch in range(5)]
    assert sorted(numpy.concatenate([part[part < 5] for part in first]).tolist()) == sorted([0, 1, 2, 3, 4] * 2)
    assert not numpy.array_equal(shares.positions(7, 0), shares.positions(8, 0))
    assert [epoch.tolist() for epoch in epochs[:3]] == GOLDEN


GOLDEN = [[6, 6, 2, 7, 4, 5], [0, 6, 1, 7, 5, 7], [0, 6, 5, 5, 3, 7]]


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    shares = Shares((40, 17, 9), (40, 5, 20))
    later = [order_of(1, epoch, shares) for epoch in (3, 0, 3)]
    assert numpy.array_equal(later[0], later[2])
    assert not numpy.array_equal(later[0], later[1])
    steps = samples_of_steps(1, 3, shares, 8)
    assert steps.shape == (8, 8)
    assert numpy.array_equal(steps.reshape(-1), later[0][:64])


@pytest.mark.parametrize(
    ("count", "weights", "shares"),
    [
        (32, [1, 1], (16, 16)),
        (32, [2, 1], (21, 11)),
        (10, [1, 1, 1], (4, 3, 3)),
        (7, [0.5, 0.25, 0.25], (3, 2, 2)),
        (3, [1000, 1], (3, 0)),
    ],
)
def test_weights_are_shared_out_in_whole_numbers(count: int, weights: list[float], shares: tuple[int, ...]) -> None:
    assert shared_out(count, weights) == shares


def test_samples_keep_their_pictures_and_say_their_set(tmp_path: Path, capsys) -> None:
    data = mixed(flan(tmp_path / "a", validation_fraction=0.4), own(tmp_path / "b"), weights=[1, 3])
    data.check()
    train, validation = data.read_once()
    alone, held_out = VisionFlan(str(tmp_path / "a"), validation_fraction=0.4, **SETTINGS).read_once()
    assert [sample.id for sample in train][: len(alone)] == [f"vision_flan/{sample.id}" for sample in alone]
    assert [sample.image for sample in train][: len(alone)] == [sample.image for sample in alone]
    assert [sample.id for sample in validation] == [f"vision_flan/{sample.id}" for sample in held_out]
    assert {sample.tasks for sample in train} == {
        ("vision_flan::fake+task_0",),
        ("vision_flan::fake+task_1",),
        ("own::own",),
    }
    assert data.training_tasks() == ["fake+task_0", "fake+task_1", "own"]
    size, total = len(alone), len(alone) + 16
    taken = shared_out(total, [1, 3])
    assert data.epoch_size == Shares((size, 16), taken)
    assert data.steps_per_epoch() == total // 4
    assert f"an epoch takes vision_flan {taken[0]} of {size}, own {taken[1]} of 16 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "taken"), [({}, (16, 16)), ({"sizes": [6, 30]}, (6, 30)), ({"weights": [1, 7]}, (4, 28))]
)
def test_loaders_give_what_an_epoch_takes(tmp_path: Path, options: dict, taken: tuple[int, int]) -> None:
    data = mixed(flan(tmp_path / "a"), own(tmp_path / "b"), **options)
    loader = data.train_dataloader()
    seen = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        names = [name for batch in batches for name in batch.sample_ids]
        assert Counter(name.split("/")[0] for name in names) == {"vision_flan": taken[0], "own": taken[1]}
        tokens = sum(int((batch.labels >= 0).sum()) for batch in batches)
        assert tokens == sum(batch.step_supervised_tokens for batch in batches)
        assert sum(len(batch.pixel_values) for batch in batches) == sum(batch.step_pictures for batch in batches)
        seen.append(names)
    assert seen[0] != seen[1]


def mixture_words(folder: Path, **options: Any) -> list[str]:
    """Words of an experiment on a mixture of invented Vision-Flan and a CSV file."""
    words = small_words(folder, batch_size=4, steps=7)
    words = [
        word for pair in zip(words[::2], words[1::2], strict=True) if not pair[0].startswith("--data.") for word in pair
    ]
    flan(folder / "flan"), own(folder / "own")
    sets = [
        {"class_path": "data_modules.vision_flan.VisionFlan", "init_args": {"root": "flan", **SETTINGS}},
        {
            "class_path": "data_modules.conversations.Conversations",
            "init_args": {"file": "own/own.csv", **FORMS["csv"][1], **SETTINGS},
        },
    ]
    arguments = {"sets": sets, **SETTINGS, "sizes": [5, 9], **options}
    data = {"data": {"class_path": "data_modules.mixture.Mixture", "init_args": arguments}}
    file = written(folder / "mixture.yaml", json.dumps(data))
    return [*words[:2], "--config", str(file), *words[2:]]


def test_a_runs_name_has_what_decides_and_not_where_it_lies(tmp_path: Path) -> None:
    folders = []
    for place, options in (("one", {}), ("two", {}), ("one", {"sizes": [9, 5]}), ("one", {"num_workers": 2})):
        experiment = parse_experiment(mixture_words(tmp_path / place, **options))
        connect_experiment(experiment)
        folders.append(run_folder(experiment).name)
    assert folders[0] == folders[1] == folders[3]
    assert folders[0] != folders[2]


def test_a_checkpoint_of_other_shares_is_refused(tmp_path: Path) -> None:
    first, second = (mixed(flan(tmp_path / "a"), own(tmp_path / "b"), sizes=sizes) for sizes in ([6, 10], [10, 6]))
    kept = first.state_dict()
    shares = {"samples of vision_flan an epoch": 6, "samples of own an epoch": 10}
    assert kept == {"order_seed": 3, "samples": 32, "batch_size": 4, "group_by_length": 0, **shares}
    first.load_state_dict(kept)
    with pytest.raises(BadInputError, match="samples of vision_flan an epoch was 6 in the run of this checkpoint and"):
        second.load_state_dict(kept)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [2, 3, 5])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, stop_after: int) -> None:
    """Three steps an epoch; the stops lie in an epoch, at its end, and in one whose parts go on in the middle."""
    words = [*mixture_words(tmp_path), "--data.micro_batch_size", "2"]
    _, straight = fitted(words, run=tmp_path / "straight")
    experiment, stopped = parse_experiment(words), tmp_path / "stopped"
    experiment.trainer_config["callbacks"] = [StopAtStep(stop_after, signal.SIGTERM)]
    with pytest.raises(SystemExit):
        fit(experiment, folder=stopped)
    fitted(words, run=stopped)
    adapters = [load_file(run / "adapter" / "adapter_model.safetensors") for run in (straight, stopped)]
    assert all(numpy.array_equal(adapters[0][name], adapters[1][name]) for name in adapters[0])
    rows = [list(csv.DictReader((run / "metrics.csv").open())) for run in (straight, stopped)]
    logged = [[row["train/loss"] for row in each] for each in rows]
    assert logged[0] == logged[1]
    record = json.loads((straight / "run.json").read_text())
    assert record["tasks"] == ["fake+task_0", "fake+task_1", "own"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"weights": [1]}, "1 weights for 2 sets"),
        ({"weights": [1, 0]}, "one of the weights is 0"),
        ({"weights": [1, float("nan")]}, "one of the weights is nan"),
        ({"weights": [1e308, 1e308]}, "one of the weights is 1e\\+308"),
        ({"weights": [1, float("inf")]}, "one of the weights is inf"),
        ({"sizes": [1, -1]}, "one of the sizes is -1"),
        ({"sizes": [1, 10**12]}, "one of the sizes is 1000000000000"),
        ({"sizes": [1, 1], "weights": [1, 1]}, "both weights and sizes"),
        ({"names": ["a"]}, "1 names for 2 sets"),
        ({"names": ["a", "a"]}, "two sets are called 'a'"),
        ({"names": ["a", "b/c"]}, "a set is called 'b/c'"),
        ({"batch_size": 8}, "the set vision_flan has another batch_size"),
        ({"template": "plain"}, "the set vision_flan has another template"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, options: dict, expected: str) -> None:
    with pytest.raises(BadInputError, match=expected):
        mixed(flan(tmp_path / "a"), own(tmp_path / "b"), **options)


def test_a_set_that_would_never_come_is_refused(tmp_path: Path) -> None:
    data = mixed(flan(tmp_path / "a"), own(tmp_path / "b"), weights=[1, 1e-9])
    with pytest.raises(BadInputError, match="an epoch takes no sample of own"):
        data.read_once()


@pytest.mark.parametrize("fraction", [0.4, 0.0])
def test_no_set_validates_on_what_another_trains_on(tmp_path: Path, fraction: float) -> None:
    first = flan(tmp_path / "a", validation_fraction=0.4)
    annotations, pictures = first.root / first.annotation_file, first.root / first.image_folder
    options: dict[str, Any] = {"image_root": str(pictures), "name": "again", "validation_fraction": fraction}
    data = mixed(first, Conversations(str(annotations), **SETTINGS, **options))
    if fraction:
        assert len(data.items()) == 32
        return
    with pytest.raises(BadInputError, match="is validated on, and another set trains on it"):
        data.items()


def test_settings_that_would_not_count_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="the set own has another num_workers"):
        mixed(own(tmp_path / "b", num_workers=2))
    mixed(own(tmp_path / "b", num_workers=2), num_workers=2)
    with pytest.raises(BadInputError, match="no set"):
        mixed()
    with pytest.raises(BadInputError, match="a mixture stands in a mixture"):
        mixed(mixed(own(tmp_path / "b")))


def test_a_sets_own_settings_count_and_the_mixtures_limit_holds_for_all(tmp_path: Path) -> None:
    data = mixed(flan(tmp_path / "a", questions_per_sample=2), own(tmp_path / "b"))
    train, _ = data.read_once()
    assert data.epoch_size == Shares((8, 16), (8, 16))
    assert [len(sample.turns) for sample in train] == [2] * 8 + [1] * 16
    long = own(tmp_path / "c", on_error="leave_out", columns={"image": "path", "question": "q", "answer": "label"})
    (tmp_path / "c" / "own.csv").write_text(
        f"path,q,label\npictures/0.png,What?,{'word ' * 90}\npictures/0.png,Or?,no\n"
    )
    data = mixed(long, batch_size=4, max_text_length=80)
    assert [sample.turns[0].answer for sample in data.read_once()[0]] == ["no"]
