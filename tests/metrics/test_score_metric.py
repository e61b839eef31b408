"""The metric for logging gives what ``score`` gives, over steps and over ranks."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_m2pt.answering.score_metric import ScoreMetric
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.samples import Question
from lightning_m2pt.metrics.rules import RULES
from lightning_m2pt.metrics.score import score
from tests.metrics.test_every_rule import CLASSES, SETS

DEFAULTS = [(name, rule) for rule, named in RULES.items() for name in named.default_of if name in SETS]
ANSWERS = ("Yes", "no", "No, not sure.", "a cat", "7", "stop", "", "\ud800\n\N{GRINNING FACE}", "yes\tno", '"\\')


def header(name: str, rule: str) -> dict[str, Any]:
    return {"benchmark": name, "classes": CLASSES.get(name, []), "default_rule": rule}


def questions(name: str) -> list[Question]:
    return [
        Question(
            id=row["id"],
            subtask=row["subtask"],
            text=row["question"],
            target=row["target"],
            image=Path(),
            image_id=row["image_id"],
            source="",
            references=tuple(row.get("references", ())),
            choices=tuple(row.get("choices", ())),
        )
        for row in SETS[name]
    ]


def chosen(name: str, seed: int = 0) -> dict[str, str]:
    """Returns an answer for every question of a set, half of them right."""
    generator = random.Random(seed)
    return {row["id"]: generator.choice((row["target"], generator.choice(ANSWERS))) for row in SETS[name]}


def expected(name: str, rule: str, answers: dict[str, str]) -> float:
    predictions = [row | {"answer": answers[row["id"]]} for row in SETS[name]]
    return score(header(name, rule), predictions, rule).value


def feed(metric: ScoreMetric, answers: dict[str, str], ids: Sequence[str], batch: int = 3) -> None:
    for start in range(0, len(ids), batch):
        metric.update(ids[start : start + batch], [answers[name] for name in ids[start : start + batch]])


@pytest.mark.parametrize(("name", "rule"), DEFAULTS)
def test_the_metric_is_the_score_over_steps_with_repetitions_and_after_a_reset(name: str, rule: str) -> None:
    metric = ScoreMetric(header(name, rule), questions(name))
    values = set()
    for seed in range(4):
        answers = chosen(name, seed)
        ids = [*answers, *list(answers)[:2]]
        random.Random(seed).shuffle(ids)
        feed(metric, answers, ids)
        value = expected(name, rule, answers)
        assert metric.compute() == torch.tensor(value)
        values.add(value)
        metric.reset()
    assert len(values) > 1


def test_the_first_answer_counts_and_more_answers_change_the_value() -> None:
    metric = ScoreMetric(header("vsr", "yes_no_words"), questions("vsr"))
    right = {question.id: question.target for question in questions("vsr")}
    feed(metric, dict.fromkeys(right, "?"), list(right)[:3])
    with pytest.raises(BadInputError, match="no answer to 'vsr/3'"):
        metric.compute()
    feed(metric, right, list(right))
    assert metric.compute() == torch.tensor(100 * 4 / 7)


def test_another_rule_can_be_named_and_unknown_questions_are_refused() -> None:
    metric = ScoreMetric(header("mme", "mme_official"), questions("mme"), rule="mme_m2pt")
    with pytest.raises(BadInputError, match="'mme/99' is no question"):
        metric.update(["mme/99"], ["Yes"])
    answers = dict.fromkeys((question.id for question in questions("mme")), "I cannot tell")
    feed(metric, answers, list(answers))
    assert metric.compute() == torch.tensor(25.0)


def test_a_rule_that_does_not_fit_is_refused_before_any_answer() -> None:
    with pytest.raises(BadInputError, match="mme_lmms does not fit"):
        ScoreMetric(header("mnist", "closed_set"), questions("mnist"), rule="mme_lmms")
    with pytest.raises(BadInputError, match="unknown scoring rule"):
        ScoreMetric(header("mnist", "closed set"), questions("mnist"))


class Answering(LightningModule):
    """Answers every question with its target but one, and logs the score."""

    def __init__(self) -> None:
        super().__init__()
        self.score_metric = ScoreMetric(header("mme", "mme_official"), questions("mme"))

    def validation_step(self, batch: list[str], batch_idx: int) -> None:
        targets = {row["id"]: row["target"] for row in SETS["mme"]} | {"mme/0": "?"}
        self.score_metric.update(batch, [targets[name] for name in batch])
        self.log("val/mme", self.score_metric)


def test_lightning_logs_the_score_of_an_epoch_and_starts_anew() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    module = Answering()
    loader = DataLoader([row["id"] for row in SETS["mme"]], batch_size=5)
    for _ in range(2):
        (logged,) = trainer.validate(module, loader, verbose=False)
        assert logged["val/mme"] == pytest.approx(100 * (400 - 100 / 6 - 100 / 3) / 400)


def test_the_state_is_bytes_that_ranks_can_put_together() -> None:
    metric = ScoreMetric(header("vsr", "yes_no_words"), questions("vsr"))
    assert [state.dtype for state in metric.lines] == [torch.uint8]
    metric.update(["vsr/0"], ["\ud800 \N{GRINNING FACE}\n"])
    metric.reset()
    assert [(state.dtype, len(state)) for state in metric.lines] == [(torch.uint8, 0)]


RANKS = 2


def answer_as_rank(rank: int, folder: str) -> None:
    """One of two processes: odd and even questions, one of them twice, then everything on rank 1 alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    for name, rule in DEFAULTS:
        metric = ScoreMetric(header(name, rule), questions(name))
        answers = chosen(name)
        ids = list(answers)
        for share in ([*ids[rank::RANKS], ids[0]], ids if rank else []):
            feed(metric, answers, share)
            assert float(metric.compute()) == pytest.approx(expected(name, rule, answers), rel=1e-6), (name, rank)
            assert sum(map(len, metric.lines)) > 0 or not share
            metric.reset()
    Path(folder, f"rank {rank} is done").touch()
    torch.distributed.destroy_process_group()


def test_two_processes_compute_the_score_of_all_answers(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(answer_as_rank, args=(str(tmp_path),), nprocs=RANKS, start_method="fork")
    assert len(list(tmp_path.glob("rank * is done"))) == RANKS
