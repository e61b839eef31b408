"""Sample answers beside the truth in TensorBoard, and a training that does not notice them."""

import csv
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import sample_answers
from callbacks.sample_answers import LONGEST_SIDE, SampleAnswers, cell
from experiments.configuration.cli import parse_experiment
from experiments.runs.loading import load_run
from experiments.runs.prepare import check_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.answering.decoding import GreedyAnswering
from lightning_m2pt.errors import BadInputError, DivergedError
from lightning_m2pt.inputs.collate import encoded_sample
from tests.support.small_experiment import small_words
from tests.tuning.test_early_stopping import killed

STEPS = 10
VALIDATED = ["--data.validation_fraction", "0.5", "--trainer.val_check_interval", "2", "--model.method.dropout", "0.2"]
WITHOUT = ["--trainer.callbacks+", "callbacks.sample_answers.SampleAnswers", "--trainer.callbacks.samples", "0"]
SPLIT = ["--trainer.check_val_every_n_epoch", "null", "--save_every_n_steps", "3"]


def words_of(folder, *more: str, steps: int = STEPS) -> list[str]:
    return [*small_words(folder, batch_size=4, steps=steps), *VALIDATED, *SPLIT, *more]


def board_of(run) -> EventAccumulator:
    for number, file in enumerate(sorted((run / "tb").glob("events*"), key=lambda file: file.stat().st_mtime_ns)):
        file.rename(file.with_name(f"events.out.tfevents.{number:010d}"))  # read in order of their names
    board = EventAccumulator(str(run / "tb"), size_guidance={"tensors": 0, "images": 0, "scalars": 0})
    board.Reload()
    return board


def tables_of(run) -> dict[int, str]:
    # TensorBoard's own reader; the older one forgets numbers and pictures alone when a run goes on.
    board = plugin_event_accumulator.EventAccumulator(str(run / "tb"), size_guidance={"tensors": 0})
    board.Reload()
    events = board.Tensors("samples/answers/text_summary")
    assert len({event.step for event in events}) == len(events)
    return {event.step: event.tensor_proto.string_val[0].decode() for event in events}


class States(Callback):
    """Notes the generator's state at every batch."""

    def __init__(self) -> None:
        self.states: list[torch.Tensor] = []

    def on_train_batch_start(self, *_: object) -> None:
        self.states.append(torch.get_rng_state())


def test_answers_stand_beside_the_truth(tmp_path):
    run = fit(parse_experiment(words_of(tmp_path, steps=4)), folder=tmp_path / "run")
    tables = tables_of(run)
    assert sorted(tables) == [2, 4]
    assert len(set(tables.values())) == 2  # the answers change while it learns
    experiment = parse_experiment(words_of(tmp_path, steps=4))
    check_experiment(experiment)
    load_run(run, experiment)
    data, model = experiment.data, experiment.model.eval()
    samples = list(data.read_once()[1])[:4]
    # Another way to the same answers: one padded batch, with the adapter read from the disk.
    texts = data.processor.encode_all(samples, data.template, with_answers=False)
    batch = data.collator([encoded_sample(*each, data.processor, "here") for each in zip(samples, texts, strict=True)])
    answers = GreedyAnswering(data.processor, 64, data.template).answer(model.backbone, batch)
    rows = [
        f"| {number} | {cell(sample.turns[-1].question)} | {cell(sample.turns[-1].answer)} | {cell(answer.text)} |"
        for number, (sample, answer) in enumerate(zip(samples, answers, strict=True), start=1)
    ]
    assert tables[4].splitlines()[2:] == rows
    board = board_of(run)
    pictures = [tag for tag in board.Tags()["images"] if tag.startswith("samples/picture_")]
    assert len(pictures) == len(samples)
    assert all(max(board.Images(tag)[0].width, board.Images(tag)[0].height) <= LONGEST_SIDE for tag in pictures)


@pytest.mark.slow
def test_training_does_not_notice_and_a_killed_run_shows_every_validation_once(tmp_path, monkeypatch):
    noted = []
    for name, more in (("without", WITHOUT), ("with", [])):
        experiment = parse_experiment(words_of(tmp_path, *more))
        noted.append(states := States())
        experiment.trainer_config["callbacks"] = [*(experiment.trainer_config["callbacks"] or []), states]
        fit(experiment, folder=tmp_path / name)
    without, run, cut = (tmp_path / name for name in ("without", "with", "cut"))
    one, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (without, run))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert (without / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    assert all(torch.equal(*pair) for pair in zip(noted[0].states, noted[1].states, strict=True))
    assert "samples/answers/text_summary" not in board_of(without).Tags()["tensors"]
    assert sorted(tables_of(run)) == [2, 4, 6, 8, 10]
    for hook, step in (("in the next step", 5), ("in validation", 8)):
        killed(words_of(tmp_path), cut, hook, step, monkeypatch)
    fit(parse_experiment(words_of(tmp_path)), folder=cut)
    assert [event.step for event in board_of(cut).Images("samples/picture_1")] == [2]  # once, in the whole run
    assert tables_of(cut) == tables_of(run)
    assert (cut / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    with (run / "metrics.csv").open(newline="") as file:
        norm = float(list(csv.DictReader(file))[9]["train/row_norm/visual_prompts"])
    logged = board_of(run).Scalars("train/row_norm/visual_prompts")
    assert [(event.step, event.value) for event in logged] == [(9, pytest.approx(norm))]


def trainer_of(read_once: Callable[[], Any], others_fail: bool = False) -> Any:
    def decision(own: bool, all: bool) -> bool:
        assert not all
        return own or others_fail

    return SimpleNamespace(
        state=SimpleNamespace(fn="fit"),
        sanity_checking=False,
        datamodule=SimpleNamespace(read_once=read_once),
        strategy=SimpleNamespace(reduce_boolean_decision=decision),
        is_global_zero=False,
    )


def module_of(lockstep: bool = False) -> Any:
    return SimpleNamespace(device=torch.device("cpu"), backbone=SimpleNamespace(runs_in_lockstep=lockstep))


def failing(error: Exception) -> Callable[[], Any]:
    def read_once() -> None:
        raise error

    return read_once


@pytest.mark.parametrize(
    ("trainer", "why"),
    [
        (trainer_of(failing(DivergedError("infinite numbers"))), "infinite numbers"),
        (trainer_of(lambda: ([], []), others_fail=True), "the samples that are asked: another process cannot"),
    ],
    ids=["here", "on another rank"],
)
@pytest.mark.parametrize("lockstep", [False, True])
def test_what_cannot_be_answered_ends_nothing_else_and_is_said_once(
    trainer: Any, why: str, lockstep: bool, caplog: pytest.LogCaptureFixture
) -> None:
    callback = SampleAnswers()
    for _ in range(2):
        callback.on_validation_end(trainer, module_of(lockstep))
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"no more sample answers in TensorBoard: error: {why}")


@pytest.mark.parametrize(
    ("error", "lockstep", "ends"),
    [
        (torch.OutOfMemoryError("full"), True, True),
        (torch.OutOfMemoryError("full"), False, False),
        (DivergedError("infinite numbers"), True, False),
    ],
)
def test_a_rank_that_alone_cannot_answer_does_not_go_on_where_others_wait_for_its_shares(
    error: Exception, lockstep: bool, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(*_: Any) -> str:
        raise error

    monkeypatch.setattr(sample_answers, "answer_of", answer)
    monkeypatch.setattr(SampleAnswers, "_prepared", lambda *_: "a sample")
    callback = SampleAnswers()
    callback.load_state_dict({"pictures_are_shown": True})
    with pytest.raises(type(error)) if ends else nullcontext():
        callback.on_validation_end(trainer_of(lambda: ([], ["a sample"])), module_of(lockstep))


def test_a_cell_stays_one_and_drives_nothing() -> None:
    assert cell("a | b\nc\x1b[2J <i>") == r"a \| b c\\x1b\[2J \<i\>"
    assert cell("x" * 301) == "x" * 300 + "…"


@pytest.mark.parametrize("arguments", [{"samples": -1}, {"max_new_tokens": 0}])
def test_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(BadInputError, match="is too few"):
        SampleAnswers(**arguments)
