"""Objects made in Python are tuned as what a configuration describes: to the last bit, or refused by name."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy

from callbacks.best_adapter import BestAdapter
from data_modules.vsr import VSR
from experiments.runs.from_python import evaluate, fit, save
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.storage.adapter_folder import CARD_FILE, CONFIG_FILE, TENSOR_FILE
from lightning_m2pt.storage.run_record import COMPLETED, read_run_record
from tests.support.python_objects import QUIET, TRAINER, small_data, small_method, small_module
from tests.support.small_experiment import fitted, small_words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("from_python")


class Counting(Callback):
    """A callback of somebody's own, with an argument."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.steps = 0

    def on_train_batch_end(self, *arguments: object, **named: object) -> None:
        self.steps += 1


@pytest.fixture(scope="module")
def by_command(folder: Path) -> Path:
    """The run of the command."""
    return fitted(small_words(folder, steps=3))[1]


@pytest.fixture(scope="module")
def mine(folder: Path) -> Path:
    """The run of objects with the same settings, and a callback of somebody's own."""
    counting = Counting(7)
    run = fit(small_module(), small_data(folder), {**TRAINER, "callbacks": [counting]}, folder / "mine")
    assert counting.steps == 3
    return run


def test_the_run_is_that_of_the_command_byte_for_byte(
    folder: Path, by_command: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adapter and table; the same call again does nothing."""
    for name in (TENSOR_FILE, CONFIG_FILE):
        assert (mine / "adapter" / name).read_bytes() == (by_command / "adapter" / name).read_bytes()
    assert (mine / "metrics.csv").read_bytes() == (by_command / "metrics.csv").read_bytes()
    assert "of experiment mine" in (mine / "adapter" / CARD_FILE).read_text(encoding="utf-8")
    capsys.readouterr()
    fit(small_module(), small_data(folder), {**TRAINER, "callbacks": [Counting(7)]}, mine)
    assert capsys.readouterr().out.startswith("already tuned")


def test_a_folder_keeps_to_the_objects_it_was_begun_with(folder: Path, mine: Path) -> None:
    """What can be read off them: a method's arguments, the optimizer's, those of a callback of one's own."""
    record = read_run_record(mine)
    assert COMPLETED in record
    assert record["deciding"]["method"]["init_args"]["visual_length"] == 10
    other_rate = small_module()
    other_rate.optimizer_settings.learning_rate = 1e-3
    for model, number, key in ((small_module(), 8, "trainer.callbacks"), (other_rate, 7, "optimizer.learning_rate")):
        with pytest.raises(BadInputError, match=f"{key} was"):
            fit(model, small_data(folder), {**TRAINER, "callbacks": [Counting(number)]}, mine)


def test_a_backbone_is_loaded_once_for_several_methods(folder: Path) -> None:
    """The second run is the one with a backbone of its own, if the first method is taken away; else it is refused."""
    first = small_module()
    fit(first, small_data(folder), {**TRAINER, "max_steps": 1}, folder / "first")
    weights = first.backbone.language_model
    second = small_module()
    second.backbone = first.backbone
    with pytest.raises(BadInputError, match="another method is attached"):
        fit(second, small_data(folder), {**TRAINER, "max_steps": 1}, folder / "second")
    first.method.detach(first.backbone)
    run = fit(second, small_data(folder), {**TRAINER, "max_steps": 1}, folder / "second")
    assert second.backbone.language_model is weights
    assert (run / "adapter" / TENSOR_FILE).read_bytes() == (folder / "first/adapter" / TENSOR_FILE).read_bytes()
    with pytest.raises(BadInputError, match="has been built, and perhaps tuned, before"):
        fit(second, small_data(folder), {**TRAINER, "max_steps": 1}, folder / "third")


def test_a_run_leaves_nothing_to_the_next_with_the_same_data(folder: Path, by_command: Path) -> None:
    """Neither in the next call nor for a Trainer of Lightning's own does an earlier limit of epochs count."""
    data = small_data(folder)
    fit(small_module(), data, {**TRAINER, "max_steps": 1, "limit_train_batches": 1}, folder / "limited")
    assert data.steps_per_epoch() == 2
    run = fit(small_module(), data, TRAINER, folder / "whole again")
    assert (run / "adapter" / TENSOR_FILE).read_bytes() == (by_command / "adapter" / TENSOR_FILE).read_bytes()


def test_callbacks_begin_anew_in_every_run(folder: Path) -> None:
    """Of an object that has watched another run neither what it counted nor the tensors it kept are left."""

    def run(name: str, callbacks: list[Callback]) -> Path:
        data = small_data(folder, validation_fraction=0.5, batch_size=4)
        settings = {**TRAINER, "callbacks": callbacks}
        return fit(small_module(), data, settings, folder / name, validate_every_n_steps=1)

    both: list[Callback] = [BestAdapter(), EarlyStopping("val/loss", patience=1, min_delta=100.0)]
    first = run("first watched", both)
    both[0].value, both[0].tensors = 0.0, {}  # type: ignore[attr-defined]  # as after a better run
    second = run("second watched", both)
    assert both[1].wait_count == 1  # type: ignore[attr-defined]
    for name in ("adapter", "adapter_best"):
        assert (first / name / TENSOR_FILE).read_bytes() == (second / name / TENSOR_FILE).read_bytes()


def with_setting(folder: Path, **setting: object) -> Path:
    """Tunes with one of the Trainer's arguments changed."""
    return fit(small_module(), small_data(folder), {**TRAINER, **setting}, folder)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: fit(small_method(), small_data(folder), TRAINER, folder), "model: a M2PT is given"),
        (lambda folder: fit(small_module(), small_method(), TRAINER, folder), "data: a M2PT is given"),
        (lambda folder: fit(small_module(), VSR(str(folder), "plain"), TRAINER, folder), "VSR is an evaluation set"),
        (lambda folder: fit(small_module(), small_data(folder), 300, folder), "trainer: a int is given"),
        (lambda folder: fit(small_module(), small_data(folder), {"max_step": 3}, folder), "did you mean max_steps"),
        (lambda folder: fit(small_module(), small_data(folder), {"max_steps": "x"}, folder), "trainer.max_steps"),
        (lambda folder: fit(small_module(), small_data(folder), {}, folder), "nothing says when the run ends"),
        (lambda folder: fit(small_module(), small_data(folder), TRAINER, folder, seed=-1), "seed: -1 does not fit"),
        (lambda folder: with_setting(folder, logger=False), "metrics.csv and TensorBoard are part of a run"),
        (
            lambda folder: with_setting(folder, logger=CSVLogger("x", version=3)),
            "would empty the table of this version",
        ),
        (lambda folder: with_setting(folder, callbacks=ModelCheckpoint()), "written by its own callback"),
        (lambda folder: with_setting(folder, callbacks=[EarlyStopping("x")]), "nothing is logged as 'x'"),
        (
            lambda folder: with_setting(folder, strategy=DDPStrategy(ddp_comm_hook=print)),
            "trainer.strategy.ddp_comm_hook",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_three_lines(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    with pytest.raises(BadInputError) as caught:
        make(tmp_path / "run")
    assert said in caught.value.message()
    assert len(caught.value.message().splitlines()) <= 3
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("*.json"))


def test_a_set_is_answered_and_scored_from_python(folder: Path, mine: Path) -> None:
    """By a module that takes the run's adapter, and by the same module as it is then."""
    VSR.write_fake(folder / "vsr")
    questions = VSR(str(folder / "vsr"), "vicuna_v1", batch_size=4, max_new_tokens=5)
    model = small_module()
    score = evaluate(model, questions, mine, accelerator="cpu")["vsr"]
    assert score.n == len(questions.questions())
    assert 0 <= score.value <= 100
    answers = (mine / "predictions/vsr.jsonl").read_bytes()
    assert evaluate(model, [questions], mine, accelerator="cpu", force=True)["vsr"] == score
    assert (mine / "predictions/vsr.jsonl").read_bytes() == answers
    with pytest.raises(BadInputError, match="no adapter here"):
        evaluate(small_module(), questions, folder / "nowhere", accelerator="cpu")


def test_a_plain_trainer_saves_predicts_and_tests(folder: Path, by_command: Path) -> None:
    """Its adapter is the command's file; its answers and its score are those of ``evaluate``."""
    VSR.write_fake(folder / "vsr")
    sets = [VSR(str(folder / "vsr"), name, 4, tokens) for name, tokens in (("vicuna_v1", 5), ("plain", 2))]
    seed_everything(0, verbose=False)
    model, data = small_module(), small_data(folder)
    trainer = Trainer(**QUIET, enable_checkpointing=False)
    trainer.fit(model, data)
    adapter = save(model, data, folder / "plain")
    for name in (TENSOR_FILE, CONFIG_FILE):
        assert (adapter / name).read_bytes() == (by_command / "adapter" / name).read_bytes()
    for number, questions in enumerate(sets):
        predicted = dict(answer for batch in trainer.predict(model, questions) for answer in batch)
        (tested,) = trainer.test(model, questions, verbose=False)
        score = evaluate(model, questions, folder / f"plain{number}", accelerator="cpu")["vsr"]
        assert model.answering is None  # or the next set would be answered as this one
        answers = read_predictions(folder / f"plain{number}/predictions/vsr.jsonl").predictions
        assert {row["id"]: row["answer"] for row in answers} == {name: each.text for name, each in predicted.items()}
        assert tested == {"score/vsr": pytest.approx(score.value)}


def test_a_data_module_follows_the_module_it_is_tuned_with(folder: Path) -> None:
    """Its texts are encoded anew for another backbone; what somebody has connected stays."""
    data = small_data(folder)
    first, second = small_module(), small_module()
    settings = {**QUIET, "max_steps": 1, "enable_checkpointing": False}
    Trainer(**settings).fit(first, data)
    processor, texts = data.processor, data.train_texts
    Trainer(**settings).fit(first, data)
    assert data.processor is processor
    Trainer(**settings).fit(second, data)
    assert data.processor is not processor
    assert data.train_texts is not texts
    data.connect(processor)
    Trainer(**settings).fit(second, data)
    assert data.processor is processor
