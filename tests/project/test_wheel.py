"""The wheel: one package, and what scores, reports and inspects in an empty environment and an empty folder."""

import json
import re
import shutil
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy
import pytest
from PIL import Image

from lightning_m2pt.commands.verbs import VERBS, needs_checkout
from lightning_m2pt.methods.m2pt import M2PT
from tests.support.answers.evaluated_folders import write_outputs
from tests.support.answers.report_folders import SETS, write_everything
from tests.support.answers.saved_adapters import save_invented, write_pictures
from tests.support.installed_wheel import ROOT, build_wheel, called, install_wheel
from tests.support.small_experiment import run_with_a_set

LARGEST_WHEEL = 20_000_000
NAME = f"lightning_m2pt-{version('lightning-m2pt')}"
IMPORTED_WITHOUT_A_CHECKOUT = """
import importlib.util, lightning_m2pt
print([name for name in ("experiments", "data_modules", "callbacks", "tests") if importlib.util.find_spec(name)])
print(lightning_m2pt.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def programs(wheel, tmp_path_factory) -> Path:
    return install_wheel(wheel, tmp_path_factory.mktemp("environment"))


@pytest.fixture
def empty(tmp_path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_it_holds_the_package_alone_with_all_that_is_read(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert wheel.stat().st_size < LARGEST_WHEEL
    assert {name.split("/")[0] for name in names} == {"lightning_m2pt", f"{NAME}.dist-info"}
    sources = {path.relative_to(ROOT) for path in (ROOT / "lightning_m2pt").rglob("*") if path.is_file()}
    wanted = {path.as_posix() for path in sources if "__pycache__" not in path.parts}
    assert {name for name in names if name.startswith("lightning_m2pt/")} == wanted
    for backbone in ("testbed", "testbed_patch12"):
        assert f"lightning_m2pt/embedded/{backbone}/language/model.safetensors" in names
    assert "lightning_m2pt/embedded/smollm2_dinov2/projector/model.safetensors" in names


def test_without_a_checkout_scores_are_counted_and_the_other_verbs_say_what_they_need(programs, empty, tmp_path):
    outputs = write_outputs(tmp_path)
    run, other = outputs / "m2pt_base" / "m2pt-seed0", outputs / "projector" / "projector-seed0"
    predictions = str(run / "predictions" / "pope.jsonl")
    answer = called(programs, empty, "python", "-c", IMPORTED_WITHOUT_A_CHECKOUT).stdout.splitlines()
    assert answer[0] == "[]"
    assert Path(answer[1]).is_relative_to(programs.parent)
    said = called(programs, empty, "m2pt", "--version")
    expected = f"lightning-m2pt {version('lightning-m2pt')}, no commit, torch {version('torch')}\n"
    assert (said.returncode, said.stdout) == (0, expected)
    for words, shown in (
        (("score", predictions), "pope_official"),
        (("report", str(outputs)), "projector"),
        (("compare", str(run), str(other)), "mnist"),
        (("export", "predictions", predictions, "--format", "lmms_eval", "--output", str(tmp_path / "export")), ""),
    ):
        done = called(programs, empty, "m2pt", *words)
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout
    assert list((tmp_path / "export").iterdir())
    refused = called(programs, empty, "m2pt", "train", "--config", "experiments/m2pt_base.yaml")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: m2pt train: this needs a checkout of the project")
    assert len(refused.stderr.splitlines()) == 3
    assert not list(empty.iterdir())


def test_a_checkout_of_the_same_version_is_used_from_any_folder_inside(programs):
    """Verbs' flags are read from the checkout; none of them needs torch for that."""
    done = called(programs, ROOT / "docs", "m2pt", "params", "--help")
    assert done.returncode == 0, done.stderr
    assert "m2pt params" in done.stdout


def test_the_page_on_installing_names_the_verbs_that_run_anywhere():
    row = next(line for line in (ROOT / "docs" / "install.md").read_text().splitlines() if "in any folder" in line)
    named = {word for word in re.findall(r"`([a-z-]+)`", row) if word in VERBS}
    assert named == {verb for verb in VERBS if not needs_checkout(verb)}


@pytest.mark.slow
def test_a_run_is_inspected_reported_and_asked_about_an_own_picture(programs, empty, tmp_path):
    run = run_with_a_set(tmp_path, steps=5)
    for data in ("vision_flan", "vsr"):
        shutil.rmtree(tmp_path / data)
    pixels = numpy.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=numpy.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    for words in (
        ("prompts", "--run", str(run), "--words", "2"),
        ("attention", "--run", str(run), "--image", str(tmp_path / "photo.png"), "--question", "What is this?"),
        ("attribution", "--run", str(run), "--image", str(tmp_path / "photo.png"), "--question", "What is this?"),
    ):
        done = called(programs, empty, "m2pt", *words)
        assert done.returncode == 0, done.stderr
    figures = run / "figures"
    assert json.loads((figures / "prompts" / "prompts.json").read_text())["textual_prompts"]["nearest_words"]
    assert {"attention.html", "own-photo.safetensors"} <= {path.name for path in (figures / "attention").iterdir()}
    assert (figures / "attribution" / "own-photo-occlusion.png").is_file()
    refused = called(programs, empty, "m2pt", "attention", "--run", str(run))
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: m2pt attention without --image: this needs a checkout of the project")
    assert not list(empty.iterdir())


ASKED_IN_A_PROGRAM = """
import sys
import lightning_m2pt
assert "torch" not in sys.modules
model = lightning_m2pt.load(sys.argv[1], device="cpu")
print(lightning_m2pt.__file__)
print(model.ask_all([(sys.argv[2], "What is this?"), (sys.argv[2], "Is it red?")], max_new_tokens=6))
"""


@pytest.mark.slow
def test_an_adapter_is_asked_in_a_program_of_ones_own(programs, empty, tmp_path):
    (picture,) = write_pictures(tmp_path / "pictures", 1)
    asked = [(picture, "What is this?"), (picture, "Is it red?")]
    expected = save_invented(tmp_path / "adapter", M2PT(visual_length=2, textual_length=2), asked)
    words = ("-c", ASKED_IN_A_PROGRAM, str(tmp_path / "adapter"), str(picture))
    done = called(programs, empty, "python", *words)
    assert done.returncode == 0, done.stderr
    place, answers = done.stdout.splitlines()
    assert Path(place).is_relative_to(programs.parent)
    assert answers == str(expected)
    assert not list(empty.iterdir())


@pytest.mark.slow
def test_the_page_is_whole_without_pictures(programs, empty, tmp_path):
    outputs = write_everything(tmp_path)
    for name in SETS:
        (tmp_path / "data" / name).mkdir(parents=True)
    done = called(programs, empty, "m2pt", "report-page", str(outputs), "--output", str(tmp_path / "report"))
    assert done.returncode == 0, done.stderr
    page = next((tmp_path / "report").glob("*.html")).read_text()
    assert "lora" in page
    assert "vsr: no pictures (this needs a checkout of the project" in page
    assert not list(empty.iterdir())


@pytest.mark.slow
def test_every_verb_without_a_checkout_helps_or_says_what_it_needs(programs, empty):
    for verb in VERBS:
        done = called(programs, empty, "m2pt", verb, "--help")
        if needs_checkout(verb):
            assert done.returncode == 2
            assert done.stderr.startswith(f"error: m2pt {verb}: this needs a checkout of the project")
        else:
            assert done.returncode == 0, done.stderr
            assert f"m2pt {verb}" in done.stdout
