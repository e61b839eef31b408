"""Answers do not depend on batches, a killed evaluation goes on where it stopped, and other answers are refused."""

import copy
import json
import os
import re
import signal
from pathlib import Path

import pytest

from callbacks.predictions import prediction_file
from data_modules.mme import MME
from data_modules.text_vqa import TextVQA
from data_modules.vsr import VSR
from experiments.commands.evaluate import evaluation_folder
from experiments.commands.evaluate import main as evaluate
from experiments.commands.parsers.predict import EXAMPLE
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.evaluation import AnsweringOptions, evaluate_frozen
from experiments.runs.prepare import check_experiment
from lightning_m2pt.answering.decoding import GreedyAnswering
from lightning_m2pt.answering.partial_predictions import PartialPredictions
from lightning_m2pt.backbones.open_clip_llama import OpenClipLlama
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main as m2pt
from lightning_m2pt.metrics.predictions import read_predictions
from tests.support.small_experiment import fitted, small_words

FROZEN = "experiments/frozen.yaml"
BATCH_SIZES = (1, 2, 7, 16)


def set_words(folder: Path, batch_size: int = 3) -> list[str]:
    """Returns words for invented MME and VSR questions of different lengths."""
    MME.write_fake(folder / "mme")
    VSR.write_fake(folder / "vsr")
    sets = [
        {
            "class_path": f"data_modules.{name.lower()}.{name}",
            "init_args": {
                "root": str(folder / name.lower()),
                "template": "vicuna_v1",
                "batch_size": batch_size,
                "max_new_tokens": 6,
            },
        }
        for name in ("MME", "VSR")
    ]
    return ["--benchmarks", json.dumps(sets)]


def frozen_experiment(folder: Path, batch_size: int = 3, output: str = "outputs") -> Experiment:
    words = ["--config", FROZEN, *set_words(folder, batch_size), "--output_root", str(folder / output)]
    experiment = parse_experiment(words)
    check_experiment(experiment)
    return experiment


def rows_of(folder: Path, name: str) -> list[dict]:
    return list(read_predictions(prediction_file(folder, name)).predictions)


@pytest.mark.parametrize("shared_prefix", [True, False], ids=["shared prefix", "one by one"])
@pytest.mark.parametrize("method", ["greedy", "likelihood_sum", "likelihood_mean"])
def test_answers_do_not_depend_on_the_batch_size(tmp_path, method, shared_prefix):
    of_size = {}
    for size in BATCH_SIZES:
        experiment = frozen_experiment(tmp_path, size, output=f"outputs{size}")
        # Alone: each question by itself, in the reference's way.
        options = AnsweringOptions(method, shared_prefix=shared_prefix and size > 1)
        folder, _ = evaluate_frozen(experiment, options)
        of_size[size] = {name: rows_of(folder, name) for name in ("mme", "vsr")}
    for size in BATCH_SIZES[1:]:
        for name, alone in of_size[1].items():
            assert len(alone) >= 4
            for one, batched in zip(alone, of_size[size][name], strict=True):
                assert one["id"] == batched["id"]
                assert "near_tie" in one or one["answer"] == batched["answer"]
                assert batched.get("log_probabilities", {}) == pytest.approx(one.get("log_probabilities", {}), abs=1e-4)
                assert bool(one.get("log_probabilities")) == (method != "greedy")


class Killed(Exception):
    """Stands for whatever ends a process in the middle."""


def kill_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> list[int]:
    """Lets so many batches be answered and returns a list that grows by every batch's size."""
    sizes, whole = [], GreedyAnswering.answer

    def answer(self, backbone, batch):
        if len(sizes) == batches:
            raise Killed
        sizes.append(len(batch))
        return whole(self, backbone, batch)

    monkeypatch.setattr(GreedyAnswering, "answer", answer)
    return sizes


@pytest.mark.parametrize("shared_prefix", [True, False], ids=["shared prefix", "one by one"])
def test_a_killed_evaluation_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys, shared_prefix):
    options, before = AnsweringOptions(shared_prefix=shared_prefix), 2 * (2 if shared_prefix else 3)  # whole pictures
    whole, scores = evaluate_frozen(frozen_experiment(tmp_path, output="whole"), options)
    with monkeypatch.context() as patch:
        kill_after(patch, batches=2)
        with pytest.raises(Killed):
            evaluate_frozen(frozen_experiment(tmp_path, output="cut"), options)
    (partial,) = (tmp_path / "cut").rglob("*.partial-0")
    assert len(partial.read_text().splitlines()) == 1 + before
    with partial.open("ab") as file:
        file.write(b'{"id": "count/fake_1/2", "answer": "ye')  # what a kill leaves of a line
    capsys.readouterr()
    with monkeypatch.context() as patch:
        sizes = kill_after(patch, batches=1000)
        cut, again = evaluate_frozen(frozen_experiment(tmp_path, output="cut"), options)
    assert again == scores
    assert sum(sizes) == sum(score.n for score in scores.values()) - before
    assert f"{before} are answered" in capsys.readouterr().out
    files = sorted(path.name for path in (cut / "predictions").iterdir())
    assert files == ["mme.jsonl", "vsr.jsonl"]
    for name in files:
        assert (cut / "predictions" / name).read_bytes() == (whole / "predictions" / name).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_evaluation_after_its_batch(tmp_path, monkeypatch, capsys, number):
    whole = GreedyAnswering.answer

    def answer(self, backbone, batch):
        os.kill(os.getpid(), number)
        return whole(self, backbone, batch)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(GreedyAnswering, "answer", answer)
        with pytest.raises(SystemExit) as ended:
            evaluate_frozen(frozen_experiment(tmp_path), AnsweringOptions(shared_prefix=False))
    assert ended.value.code == 128 + number
    assert re.search(r"stopped after 3 of \d+ questions of \w+: the same command goes on", capsys.readouterr().out)
    (partial,) = tmp_path.rglob("*.partial-0")
    assert len(partial.read_text().splitlines()) == 1 + 3  # the batch it came in
    signal.signal(number, before)


def test_a_kill_between_the_last_answer_and_the_file_loses_nothing(tmp_path, monkeypatch):
    def killed(self, ids):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(PartialPredictions, "finish", killed)
        with pytest.raises(Killed):
            evaluate_frozen(frozen_experiment(tmp_path))
    sizes = kill_after(monkeypatch, batches=1000)
    _, scores = evaluate_frozen(frozen_experiment(tmp_path))
    assert sum(sizes) == scores["vsr"].n  # all of MME was answered before


def changed_header(path: Path, **changes: object) -> None:
    header, *lines = path.read_text().splitlines()
    path.write_text("".join(line + "\n" for line in [json.dumps({**json.loads(header), **changes}), *lines]))


@pytest.mark.parametrize(("key", "value"), [("adapter", "another"), ("data_revision", "older"), ("template", "plain")])
@pytest.mark.parametrize("suffix", ["", ".partial-0"], ids=["whole", "partial"])
def test_other_answers_are_refused_by_name_and_kept(tmp_path, key, value, suffix):
    folder, _ = evaluate_frozen(frozen_experiment(tmp_path))
    path = prediction_file(folder, "vsr")
    path = path.rename(f"{path}{suffix}")
    changed_header(path, **{key: value})
    before = path.read_bytes()
    with pytest.raises(BadInputError, match=f'{key} is "{value}" there and') as caught:
        evaluate_frozen(frozen_experiment(tmp_path))
    assert "--force" in caught.value.hint
    assert path.read_bytes() == before
    evaluate_frozen(frozen_experiment(tmp_path), AnsweringOptions(on_other="replace"))
    assert read_predictions(prediction_file(folder, "vsr")).header[key] != value
    assert [file.name for file in sorted(path.parent.iterdir())] == ["mme.jsonl", "vsr.jsonl"]


def test_a_partial_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "vsr.jsonl"
    partial = PartialPredictions(path, {"benchmark": "vsr"})
    partial.file_of(0).write_text('{"benchmark": "vsr"}\nnonsense\n')
    with pytest.raises(BadInputError, match="no line of a prediction file") as caught:
        partial.answered()
    assert caught.value.where.endswith("partial-0:2")


def test_the_command_takes_some_sets_and_says_what_it_does_not_have(tmp_path, capsys):
    _, run = fitted([*small_words(tmp_path, steps=2), *set_words(tmp_path)])
    assert evaluate(["--run", str(run), "--benchmarks", "vsr"]) == 0
    assert [path.name for path in (run / "predictions").iterdir()] == ["vsr.jsonl"]
    assert evaluate(["--run", str(run), "--benchmarks", "all", "--answer", "likelihood_sum"]) == 0
    (folder,) = (run / "evaluations").iterdir()
    assert re.fullmatch(r"likelihood_sum-[0-9a-f]+", folder.name)
    assert {row["answer"] for row in rows_of(folder, "mme")} <= {"Yes", "No"}
    header = read_predictions(prediction_file(folder, "mme")).header
    assert header["decoding"]["candidate_tokens"] == {"Yes": 2, "No": 2}
    assert header["questions"] == len(rows_of(folder, "mme"))
    capsys.readouterr()
    assert m2pt(["evaluate", "--run", str(run), "--benchmarks", "pope"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        "error: command line: --benchmarks: the experiment has no set 'pope'"
    )


def test_what_decides_no_answer_moves_no_evaluation(tmp_path):
    """Runs of earlier versions have configurations without keys that came later."""
    experiment = parse_experiment([*small_words(tmp_path), *set_words(tmp_path)])
    recorded = copy.deepcopy(experiment.config)
    del recorded["model"]["shortcuts"], recorded["model"]["backbone"]["init_args"]["feature_cache_bytes"]
    recorded["model"]["backbone"]["init_args"]["activation_checkpointing"] = False
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(json.dumps(recorded))
    assert evaluation_folder(run, experiment, frozenset(), "greedy", 0) == run
    experiment.config["model"]["method"]["init_args"]["visual_rows_to_text"] = "all"
    changed = evaluation_folder(run, experiment, frozenset(), "greedy", 0)
    assert changed.parent == run / "evaluations"


def test_sets_can_be_elsewhere(tmp_path, capsys):
    _, run = fitted([*small_words(tmp_path, steps=2), *set_words(tmp_path)])
    MME.write_fake(tmp_path / "eval" / "mme")
    assert evaluate(["--run", str(run), "--benchmarks", "mme", "--data.root", str(tmp_path / "eval")]) == 0
    assert not (run / "predictions").exists()
    assert len(list((run / "evaluations").glob("changed-*"))) == 1
    assert m2pt(["evaluate", "--run", str(run), "--benchmarks", "mme", "--data.root", str(tmp_path / "none")]) == 2
    assert str(tmp_path / "none" / "mme") in capsys.readouterr().err


def test_what_cannot_be_answered_is_refused_before_weights_load_and_before_tuning(tmp_path, capsys, monkeypatch):
    words = [*small_words(tmp_path, steps=2), *set_words(tmp_path)]
    _, run = fitted(words)
    TextVQA.write_fake(tmp_path / "text_vqa")
    arguments = {"root": str(tmp_path / "text_vqa"), "template": "vicuna_v1"}
    text_vqa = json.dumps([{"class_path": "data_modules.text_vqa.TextVQA", "init_args": arguments}])
    monkeypatch.setattr(OpenClipLlama, "load", lambda self: pytest.fail("weights were loaded"))
    assert m2pt(["evaluate", "--run", str(run), "--benchmarks", text_vqa, "--answer", "likelihood_sum"]) == 2
    assert "text_vqa has no fixed answers to choose from" in capsys.readouterr().err
    (tmp_path / "vsr" / "test.jsonl").unlink()
    assert m2pt(["train", *words, "--seed_everything", "1"]) == 2
    assert "test.jsonl" in capsys.readouterr().err


def test_the_sets_may_be_a_file(tmp_path, capsys):
    _, run = fitted([*small_words(tmp_path, steps=2), *set_words(tmp_path)])
    (tmp_path / "sets.yaml").write_text(set_words(tmp_path, batch_size=2)[1])
    assert evaluate(["--run", str(run), "--benchmarks", str(tmp_path / "sets.yaml")]) == 0
    (folder,) = (run / "evaluations").iterdir()
    assert {path.stem for path in (folder / "predictions").iterdir()} == {"mme", "vsr"}
    capsys.readouterr()
    assert m2pt(["evaluate", "--run", str(run), "--benchmarks", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.splitlines()[0].startswith("error: command line: benchmarks")


PREDICT = re.compile(r"^m2pt predict --adapter DIR (.*) --output answers$", flags=re.MULTILINE)


@pytest.mark.parametrize("of", ["help", "page"])
def test_the_shown_command_for_one_set_is_complete(of):
    page = (Path(__file__).parents[2] / "docs/runs.md").read_text(encoding="utf-8")
    shown = EXAMPLE.format(verb="predict").partition("predict ")[2] if of == "help" else PREDICT.findall(page)[0]
    base = [] if of == "help" else ["--config", "experiments/frozen.yaml"]  # on the page the adapter says it
    experiment = parse_experiment([*base, *shown.split()])
    assert isinstance(experiment.data, MME)
    assert experiment.data.template.name == "vicuna_v1"
