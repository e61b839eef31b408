"""``m2pt search-prompt`` from its words to its files, on invented data."""

import json

import pytest

from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.prompt_search import recomputed
from tests.support.small_experiment import small_words


@pytest.fixture
def words(tmp_path):
    """An untuned base and a validation split of eight invented records."""
    small = small_words(tmp_path, "experiments/frozen.yaml")
    data = small[2 : small.index("--data.questions_per_sample")]
    return ["--config", "experiments/frozen.yaml", *data, "--data.validation_fraction", "0.5"]


@pytest.fixture
def search(words, tmp_path):
    """Searches with some flags; the last given of one counts."""

    def searched(*flags: str) -> int:
        own = ["--proposer", "random", "--length", "2", "--width", "4", "--budget", "3000", "--device", "cpu"]
        return main(["search-prompt", *words, *own, "--output", str(tmp_path / "p.yaml"), *flags])

    return searched


def record(folder) -> dict:
    return json.loads((folder / "p.json").read_text())


def test_the_file_s_loss_is_what_validate_says_and_the_search_goes_on(search, words, tmp_path, capsys):
    assert search("--budget", "1200") == ExitCode.DONE
    half = record(tmp_path)
    assert search() == ExitCode.DONE
    whole = record(tmp_path)
    assert half["states"]["random"]["round"] < whole["states"]["random"]["round"]
    assert whole["states"]["random"]["rows"] <= 3000
    capsys.readouterr()
    assert main(["validate", *words, "--prompt-text", str(tmp_path / "p.yaml")]) == ExitCode.DONE
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("{"))
    expected = whole["measured"]["losses"]["searched samples"]["prompt"]
    assert json.loads(said)["val/loss"] == pytest.approx(expected, rel=1e-5)
    assert search("--seed", "1") == ExitCode.BAD_INPUT
    assert "it is of another search: " in capsys.readouterr().err
    assert record(tmp_path) == whole


def test_another_loss_of_the_text_writes_no_file(search, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recomputed, "loss_in_template", lambda *_: 0.5)
    assert search("--budget", "800") == ExitCode.BUG
    error = capsys.readouterr().err
    assert "loss of 0.500000, and the search measured " in error
    assert "Traceback" not in error
    assert not (tmp_path / "p.yaml").exists()
    assert record(tmp_path)["states"]["random"]["ended"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--budget", "10"], "do not pay for one round"),
        (["--position", "system"], "in front of a picture"),
        (["--budget", "1" + "0" * 30], "--yes"),
        (["--length", "1" + "0" * 25], "tokens a conversation has more than 160"),
        (["--length", "99999", "--data.max_text_length", "1000000"], "rows with its picture"),
        (["--proposer", "grammar"], "--proposer grammar takes --grammar"),
        (["--grammar", "testbed"], "--grammar belongs to --proposer grammar"),
        (["--width", "100001"], "more than 100,000"),
        (["--output", "none/p.yaml"], "there is no such folder"),
        (["--trainer.devices", "2"], "2 processes are configured"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_weights_load(search, capsys, monkeypatch, flags, said):
    monkeypatch.setattr("experiments.commands.search_prompt.load", lambda *_: pytest.fail("weights load"))
    assert search(*flags) == ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert said in error
    assert len(error[error.index("error: ") :].splitlines()) <= 3
