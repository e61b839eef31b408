"""The whole recipe on a small stand-in for the pair: same bytes twice, nothing done twice, killed and gone on."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experiments.alignment import export, recipe
from experiments.alignment.export import PROJECTOR, export_projector
from experiments.alignment.gates import figures_of
from experiments.alignment.recipe import AlignmentResult, recorded_losses, run_alignment
from experiments.alignment.rendered import files_below
from experiments.alignment.settings import ALIGNMENTS
from experiments.alignment.training import ONE_THREAD, fit_in_processes
from experiments.backbone_recipe.export import move_into
from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import fit
from lightning_m2pt.backbones.pairs.tower_and_decoder import TowerAndDecoder
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.system.checkout import child_environment
from tests.support.stored_backbone import change_bytes
from tests.support.towers.real_pair import store_real_pair

TINY = replace(ALIGNMENTS["smollm2_dinov2"], pictures=24, unseen=3, start_unseen=2, batch=2)
ALONE = ("--trainer.devices", "1", "--data.group_by_length", "2")


def fit_here(words: Sequence[str]) -> None:
    fit(parse_experiment(words))


def fit_never(words: Sequence[str]) -> None:
    pytest.fail("trained twice")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    store_real_pair(folder)
    return folder


@pytest.fixture(autouse=True)
def here(models, monkeypatch) -> None:
    monkeypatch.setenv("M2PT_MODELS", str(models))


def made(work: Path) -> AlignmentResult:
    work.mkdir(exist_ok=True)
    return run_alignment(TINY, work, ALONE, fit_here)


def assert_goes_with_these_alone(projector: Path, pair: Path, base: dict[str, str]) -> None:
    """Compares what a record names with the pair, and has another tower refused."""
    assert list(base) == ["vision/model.safetensors", "language/model.safetensors"]
    assert base == {name: hashlib.sha256((pair / name).read_bytes()).hexdigest() for name in base}
    other = projector.parents[1] / "other_vision"
    shutil.copytree(pair / "vision", other)
    change_bytes("model.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1]))(other)
    for tower, refused in ((pair / "vision", nullcontext()), (other, pytest.raises(BadInputError, match="other weig"))):
        with refused:
            TowerAndDecoder(str(tower), str(pair / "language"), str(projector), image_size=112).check_files()


def test_two_runs_write_the_same_bytes_and_a_third_trains_nothing(models, tmp_path, monkeypatch):
    results = [made(tmp_path / name) for name in ("one", "other")]
    moved = []
    monkeypatch.setattr(
        export, "move_into", lambda source, target, names: moved.append(names) or move_into(source, target, names)
    )
    for result, name in zip(results, ("one", "other"), strict=True):
        export_projector(result, tmp_path / name / "exported")
    one, other = (tmp_path / name / "exported" for name in ("one", "other"))
    names = ["README.md", PROJECTOR, "training.json"]
    assert [path.relative_to(one).as_posix() for path in files_below(one)] == names
    assert moved == [["README.md", PROJECTOR, "training.json"]] * 2  # the record last: what is cut off has none
    assert (one / PROJECTOR).read_bytes() == (other / PROJECTOR).read_bytes()
    assert (one / PROJECTOR).stat().st_mode & 0o777 == 0o644
    trained, start = load_file(one / PROJECTOR), load_file(tmp_path / "one" / "start.safetensors")
    assert {name: tensor.shape for name, tensor in trained.items()} == {
        "weight": torch.Size([576, 384]),
        "bias": torch.Size([576]),
    }
    assert not torch.equal(trained["weight"], start["weight"])
    record, card = json.loads((one / "training.json").read_text()), (one / "README.md").read_text()
    assert record["steps"] == 3
    assert record["settings"]["pictures"] == 24
    assert record["training"]["data"]["init_args"]["group_by_length"] == 2
    assert "rate 0.01 with cosine decay behind a warm-up of 3%" in card
    assert str(record["starts"][0]["git_commit"] or "no clone") in card
    assert "samples of 2 steps sorted by length" in card
    assert (record["gates"]["aligned"]["captions"], record["gates"]["start"]["captions"]) == (3, 2)
    assert [gate["verdict"] for gate in record["gates"]["gates"]] == ["open", "open"]
    assert "**This projector misses gates: caption tokens, whole captions.**" in card
    for path, value in {**record["base"], PROJECTOR: record["files"][PROJECTOR]}.items():
        assert f"| `{path}` | `{value}` |" in card
    assert_goes_with_these_alone(one / PROJECTOR, models / "smollm2_dinov2", record["base"])
    measured = []
    monkeypatch.setattr(
        recipe, "figures_of", lambda *given: measured.append((given[1].name, given[2])) or figures_of(*given)
    )
    again = run_alignment(TINY, tmp_path / "one", ALONE, fit_never)
    assert measured == [("start.safetensors", 2), ("aligned.safetensors", 3)]
    assert again == results[0]


def test_the_pair_has_to_be_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("M2PT_MODELS", str(tmp_path / "models"))
    assert main(["backbone", "--name", "smollm2_dinov2", "--work", str(tmp_path / "work")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert "vision is not there" in said[0]
    assert "m2pt models fetch smollm2_dinov2 --to" in said[2]
    assert not (tmp_path / "work").exists()


def test_a_launcher_is_refused(tmp_path, monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInputError, match="starts others itself"):
        run_alignment(TINY, tmp_path)


def test_an_unfinished_training_is_no_projector(tmp_path):
    with pytest.raises(BadInputError, match="not complete"):
        run_alignment(TINY, tmp_path, ALONE, lambda words: None)
    assert not (tmp_path / "aligned.safetensors").exists()


def test_losses_are_means_of_as_many_parts(tmp_path):
    rows = "".join(f"{step},{step}.0\n" for step in range(1, 46))
    (tmp_path / "metrics.csv").write_text("step,train/loss\n" + rows + "45,\n")
    losses = recorded_losses(tmp_path)
    assert losses[:2] == [{"step": 3, "loss": 2.0}, {"step": 6, "loss": 5.0}]
    assert (len(losses), losses[-1]) == (15, {"step": 45, "loss": 44.0})
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,0.5\n")
    assert recorded_losses(tmp_path) == [{"step": 1, "loss": 0.5}]


@pytest.mark.slow
def test_killed_in_two_processes_and_gone_on_it_is_the_same(tmp_path):
    """As the command runs it: two processes, killed behind a checkpoint, then the same command."""
    more = ("--save_every_n_steps", "2")
    settings = replace(TINY, pictures=80)

    def killed(words: Sequence[str]) -> None:
        command = [sys.executable, "-m", "lightning_m2pt.main", "fit", *words]
        environment = {**child_environment("m2pt backbone"), **ONE_THREAD}
        child = subprocess.Popen(command, env=environment, start_new_session=True)
        end = time.monotonic() + 600
        while not list((tmp_path / "killed").rglob("checkpoints/step=*")) and time.monotonic() < end:
            time.sleep(0.02)
        assert list((tmp_path / "killed").rglob("checkpoints/step=*")), "no checkpoint in time"
        subprocess.run(["kill", "-KILL", "--", f"-{child.pid}"], check=False)
        assert child.wait(60) == -signal.SIGKILL
        fit_in_processes(words)

    for name, fitting in (("whole", fit_in_processes), ("killed", killed)):
        (tmp_path / name).mkdir()
        run_alignment(settings, tmp_path / name, more, fitting)
    whole, gone_on = (tmp_path / name / "aligned.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == gone_on.read_bytes()
