"""The page on one's own questions: every file and every five lines of YAML on it are read, asked and scored."""

import re
from pathlib import Path

import pytest
import yaml

from data_modules.pope import POPE
from data_modules.questions import Questions
from data_modules.reading.files import fake_image, write_image
from experiments.configuration.cli import parse_experiment
from lightning_m2pt.metrics.needs import CAPTION_RULES
from lightning_m2pt.metrics.score import score
from lightning_m2pt.testing.set_contract import header_of, lines_of
from lightning_m2pt.testing.small_processor import small_processor
from tests.support.small_experiment import BASE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/own_questions.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```\w+ ([\w.]+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_has_an_example_of_every_file() -> None:
    named = [yaml.safe_load(example)[0]["init_args"]["file"] for example in EXAMPLES]
    assert sorted(named) == sorted(FILES)
    assert all(len(example.splitlines()) <= 6 for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: yaml.safe_load(example)[0]["init_args"]["file"])
def test_an_example_is_asked_and_its_right_answers_are_right(tmp_path: Path, example: str) -> None:
    if yaml.safe_load(example)[0]["init_args"]["rule"] in CAPTION_RULES:
        pytest.importorskip("pycocoevalcap")
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    for number in range(2):
        write_image(tmp_path / "pictures" / f"{number}.png", fake_image(number))
    (tmp_path / "mine.yaml").write_text(example)
    (module,) = parse_experiment(["--config", BASE, "--benchmarks", str(tmp_path / "mine.yaml")]).benchmarks
    module.connect(small_processor(8))
    module.check(decode=True)
    assert len(module.questions()) == 2
    assert [name for batch in module.predict_dataloader() for name in batch.sample_ids]
    scored = score(header_of(module), lines_of(module, [each.target for each in module.questions()]), module.rules[0])
    assert scored.value == 100 if module.rules[0] not in CAPTION_RULES else scored.raw > 1


def test_the_shipped_part_reads_popes_file_and_scores_it_alike(tmp_path: Path) -> None:
    (entry,) = yaml.safe_load((ROOT / "experiments/parts/own_questions.yaml").read_text(encoding="utf-8"))
    POPE.write_fake(tmp_path)
    places = {key: str(tmp_path / Path(entry["init_args"][key]).name) for key in ("file", "image_root")}
    own, pope = Questions(**{**entry["init_args"], **places}), POPE(str(tmp_path), "vicuna_v1")
    answers = ["Yes", "No", "no", "No."]
    rows = [row for row in lines_of(pope, answers * 3) if row["subtask"] == "random"]
    scores = [
        score(header_of(own), lines_of(own, answers), "pope_official"),
        score(header_of(pope), rows, "pope_official"),
    ]
    assert scores[0].value == scores[1].value == 75
    assert own.name == "own_yes_no"
