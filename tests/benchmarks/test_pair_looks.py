"""What is kept of attention and nearest words, from the files of the two commands, by value."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.learning.pair_looks import looks_of, shares_of_question
from benchmarks.report.pair_looks_table import looks_lines
from lightning_m2pt.errors import BadInputError

SPANS = ["textual_prompt", "system", "patch", "question", "answer"]


def write_question(folder: Path, name: str, shares: list[float]) -> None:
    """Writes a question of two layers and two heads: the tuned side's row 3 chose the answer, row 4 its end."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = torch.full((2, 5, 5), 9.0)
    rows[0, 3], rows[1, 3] = torch.tensor(shares), torch.tensor(shares) + torch.tensor([0.2, -0.2, 0.0, 0.0, 0.0])
    frozen = torch.full((2, 4, 4), 0.25)
    arrays = {
        f"{side}.language.{layer}": each for side, each in (("tuned", rows), ("frozen", frozen)) for layer in (0, 7)
    }
    save_file({name: array.clone() for name, array in arrays.items()}, folder / f"{name}.safetensors")
    sides = {
        "tuned": {
            "predicts": {"4": "<end>", "3": "yes"},
            "language": {str(layer): {"spans": SPANS} for layer in (0, 7)},
        },
        "frozen": {"predicts": {"3": "no"}, "language": {str(layer): {"spans": SPANS[1:]} for layer in (0, 7)}},
    }
    (folder / f"{name}.json").write_text(json.dumps({"sides": sides}))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_question(tmp_path / "figures" / "attention", "a", [0.4, 0.3, 0.2, 0.1, 0.0])
    write_question(tmp_path / "figures" / "attention", "b", [0.2, 0.3, 0.4, 0.1, 0.0])
    prompts = tmp_path / "figures" / "prompts" / "prompts.json"
    prompts.parent.mkdir()
    nearest = {"0": [[[" Answer", 0.87], ["x", 0.1]]], "7": [[["of", 0.25]]], "9": [[["of", 0.15]]]}
    found = {"layers": [0, 7, 9], "nearest_words": nearest, "chance_of_nearest": 0.2}
    prompts.write_text(json.dumps({"textual_prompts": found}))
    deciding = {"seed": 3, "trainer": {"max_steps": 64}, "data": {"init_args": {"batch_size": 8}}}
    (tmp_path / "run.json").write_text(json.dumps({"deciding": deciding}))
    return tmp_path


def test_attention_is_that_of_the_row_that_chose_the_first_token(run: Path) -> None:
    shares = shares_of_question(run / "figures" / "attention" / "a.json", "tuned")
    expected = {"first row": 0.5, "textual_prompt": 0.5, "system": 0.2, "patch": 0.2, "question": 0.1, "answer": 0.0}
    assert shares == pytest.approx(expected, abs=1e-6)


def test_what_is_kept_of_a_run(run: Path) -> None:
    kept = looks_of(run)
    assert (kept["questions"], kept["seed"], kept["steps"], kept["pictures_a_step"]) == (2, 3, 64, 8)
    tuned = {"first row": 0.4, "textual_prompt": 0.4, "system": 0.2, "patch": 0.3, "question": 0.1, "answer": 0.0}
    assert kept["attention"]["tuned"] == pytest.approx(tuned, abs=1e-4)
    assert kept["attention"]["frozen"]["first row"] == kept["attention"]["frozen"]["system"] == 0.25
    assert kept["words"] == {"first_layer": [["Answer", 0.87]], "others_above_chance": 0.5, "chance": 0.2}


def test_the_pages_table_by_value(run: Path) -> None:
    lines = looks_lines({"m2pt": looks_of(run)})
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells[2] == ["frozen", "25.0", "-", "25.0", "-", "-", "25.0", "25.0", "25.0"]
    assert cells[3] == ["M2PT", "40.0", "40.0", "20.0", "-", "-", "30.0", "10.0", "0.0"]
    text = " ".join(" ".join(lines).split())
    assert "of 2 questions; runs of 64 steps of 8 pictures, seed 3." in text
    assert "`Answer` 0.87. Of the other layers' rows 50% are nearer" in text
    assert looks_lines({}) == []


@pytest.mark.parametrize("key", ["seed", "steps", "pictures_a_step", "questions"])
def test_one_sentence_says_of_all_runs_what_is_the_same(run: Path, key: str) -> None:
    looks = looks_of(run)
    looks_lines({"m2pt": looks, "ptum": dict(looks)})
    with pytest.raises(BadInputError, match=f"runs of other {key}: m2pt {looks[key]}, ptum 99"):
        looks_lines({"m2pt": looks, "ptum": looks | {key: 99}})
