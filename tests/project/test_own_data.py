"""The page on one's own data: every file and every few lines of YAML on it are read, and one of them is tuned on."""

import re
from pathlib import Path

import numpy
import pytest
import yaml

from data_modules.reading.columns import ROLES
from data_modules.reading.files import fake_image, write_image
from data_modules.vision_flan import VisionFlan
from experiments.commands.fit import fit
from experiments.configuration.cli import parse_experiment
from experiments.runs.prepare import connect_experiment
from tests.support.hub_files import picture, write_shards
from tests.support.small_experiment import BASE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/own_data.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```\w+ ([\w.]+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
WORDS = ["--benchmarks", "[]", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu"]


def named(example: str) -> str:
    return yaml.safe_load(example)["data"]["init_args"].get("file", "mixture")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder with everything that the page names."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    for number in range(2):
        write_image(tmp_path / "pictures" / f"{number}.png", fake_image(number))
        write_image(tmp_path / "photos" / f"{number}.png", fake_image(number))
        (tmp_path / "photos" / f"{number}.txt").write_text("A ring.")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    place, commit = tmp_path / "cache" / "datasets--me--animals", "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    rows = [{"image": picture(fake_image(number)), "question": "Which?", "answer": "a cat"} for number in range(2)]
    for split in ("train", "test"):
        write_shards(place / "snapshots" / commit / "data", split, rows, shards=1)
    return tmp_path


def test_the_page_has_an_example_of_every_file_and_form() -> None:
    assert sorted(map(named, EXAMPLES)) == sorted([*FILES, "photos", "hub:me/animals", "mixture"])
    assert all(len(example.splitlines()) <= 7 for example in EXAMPLES if named(example) != "mixture")
    assert all(f"`{role}`" in PAGE for role in ROLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=named)
def test_an_example_is_read_and_makes_batches(folder: Path, example: str, capsys) -> None:
    (folder / "mine.yaml").write_text(example)
    experiment = parse_experiment(["--config", BASE, "--config", str(folder / "mine.yaml"), *WORDS])
    connect_experiment(experiment)
    experiment.data.check(decode=True)
    records = 4 if named(example) == "mixture" else 2
    batches = list(experiment.data.train_dataloader())
    assert [len(batch) for batch in batches] == [2] * (records // 2)
    assert all((batch.labels >= 0).any(dim=1).all() for batch in batches)
    assert "columns: " in capsys.readouterr().out


def test_what_is_said_of_the_table_stands_on_the_page(folder: Path, capsys) -> None:
    (example,) = [example for example in EXAMPLES if named(example) == "talks.csv"]
    (folder / "mine.yaml").write_text(example)
    experiment = parse_experiment(["--config", BASE, "--config", str(folder / "mine.yaml"), *WORDS])
    connect_experiment(experiment)
    experiment.data.read_once()
    said = capsys.readouterr().out.removeprefix("note: ").strip()
    assert said in " ".join(PAGE.split())


def test_the_shipped_part_reads_vision_flans_file_alike(tmp_path: Path) -> None:
    arguments = yaml.safe_load((ROOT / "experiments/parts/own_data.yaml").read_text(encoding="utf-8"))["data"][
        "init_args"
    ]
    VisionFlan.write_fake(tmp_path)
    root, file, images = str(tmp_path), Path(arguments["file"]), Path(arguments["image_root"])
    settings = {key: arguments[key] for key in ("template", "batch_size", "questions_per_sample", "max_text_length")}
    own = parse_experiment(
        [
            *("--config", BASE, "--config", "experiments/parts/own_data.yaml", *WORDS),
            *("--data.file", f"{root}/{file.name}", "--data.image_root", f"{root}/{images.name}"),
            *("--data.validation_file", "null"),
        ]
    ).data
    flan = VisionFlan(root, **settings)
    for mine, its in zip(own.read_once()[0], flan.read_once()[0], strict=True):
        assert mine == its
    assert own.fingerprint() == flan.fingerprint()


def test_a_file_of_ones_own_is_tuned_on(folder: Path) -> None:
    (folder / "mine.yaml").write_text(EXAMPLES[0])
    words = ["--config", BASE, "--config", str(folder / "mine.yaml"), *WORDS, "--output_root", str(folder / "out")]
    run = fit(parse_experiment(words))
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert numpy.isfinite(float((run / "metrics.csv").read_text().splitlines()[1].split(",")[1]))
