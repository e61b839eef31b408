"""``m2pt prompts --score-words``: each row is what another command, or an equal model, measures."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments.commands.validate import main as validate
from experiments.runs.text_scores import TextScorer
from experiments.runs.word_scores import notes_of, with_first_rows, words_of, written
from lightning_m2pt.main import main
from lightning_m2pt.prompts.deep import DeepPrompts
from lightning_m2pt.storage.adapter_folder import TENSOR_FILE, read_tensors
from lightning_m2pt.system.tensor_hashes import hash_tensors
from lightning_m2pt.testing.small_processor import SPECIAL, small_processor
from tests.support.small_experiment import fitted, small_words

TEXT = "what is this ?"
LENGTH = 4
STANDING = ["--model.optimizer.learning_rate", "1e-12", "--data.validation_fraction", "0.5"]
VISUAL = ["visual_length=2", "interaction=false"]
"""Drawn from the same seed whatever stands beside them, so that a run without textual prompts is not untouched."""
FROM_WORDS = [f"textual_length={LENGTH}", "init=words", f"init_text={TEXT}"]
RUN, FLOWING = "the run", "the words as layer 0's rows, none of their own in deeper layers"
KEPT, WITHOUT = "the words as layer 0's rows, deeper rows as tuned", "the run without textual prompts"
UNTOUCHED = "the untouched model"


def words(folder: Path, *more: str) -> list[str]:
    method = [*VISUAL, *more]
    return [*small_words(folder, steps=1, batch_size=4), *STANDING, *(f"--model.method.{each}" for each in method)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Runs that stand where they started, by what their deeper layers started from, with what is measured of them."""
    found = {}
    for layers in ("hidden", "embeddings"):
        folder = tmp_path_factory.mktemp(layers)
        _, run = fitted(words(folder, *FROM_WORDS, f"init_layers={layers}"))
        assert main(["prompts", "--run", str(run), "--score-words"]) == 0
        found[layers] = folder, json.loads((run / "figures/prompts/words.json").read_text())
    return found


def losses_of(record: dict[str, Any]) -> dict[str, float]:
    return {name: row["loss"] for name, row in record["rows"].items()}


def validated(capsys: pytest.CaptureFixture[str], given: list[str]) -> float:
    assert validate(given) == 0
    return float(json.loads(capsys.readouterr().out.splitlines()[-1])["val/loss"])


def test_rows_of_words_in_place_of_rows_of_words_are_the_run(measured) -> None:
    """Hidden states of a text are what its words become where they flow on; its words' own rows are something else."""
    (_, hidden), (_, again) = measured["hidden"], measured["embeddings"]
    assert hidden["words"]["text"] == again["words"]["text"] == TEXT
    assert hidden["words"]["is_read_back"]
    assert len(hidden["words"]["ids"]) == LENGTH
    one, other = losses_of(hidden), losses_of(again)
    assert one[KEPT] == pytest.approx(one[RUN], rel=5e-7)
    assert one[FLOWING] == pytest.approx(one[RUN], rel=5e-7)
    assert other[KEPT] == pytest.approx(other[RUN], rel=5e-7)
    assert other[FLOWING] == pytest.approx(one[RUN], rel=5e-7)
    assert abs(other[RUN] - one[RUN]) > 1e-4
    assert other[WITHOUT] == one[WITHOUT]
    assert abs(one[WITHOUT] - one[RUN]) > 1e-3
    assert abs(one[WITHOUT] - one[UNTOUCHED]) > 1e-3


def test_losses_are_those_of_a_validation(measured, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder, record = measured["hidden"]
    losses = losses_of(record)
    [run] = (folder / "outputs/m2pt_base").iterdir()
    assert losses[RUN] == pytest.approx(validated(capsys, ["--run", str(run)]), rel=1e-5)
    frozen = [*small_words(folder, config="experiments/frozen.yaml", batch_size=4), *STANDING[2:]]
    assert losses[UNTOUCHED] == pytest.approx(validated(capsys, frozen), rel=1e-5)
    plain = fitted(words(tmp_path, "textual_length=0", "init=xavier_uniform"))[1]
    assert losses[WITHOUT] == pytest.approx(validated(capsys, ["--run", str(plain)]), rel=1e-5)
    for place, text in (("in front of", f"{TEXT} {{question}}"), ("behind", f"{{question}} {TEXT}")):
        (tmp_path / "prompt.yaml").write_text(json.dumps({"question": text}))
        found = validated(capsys, [*frozen, "--prompt-text", str(tmp_path / "prompt.yaml")])
        assert losses[f"{UNTOUCHED}, the words as text {place} the question"] == pytest.approx(found, rel=1e-5)
        assert abs(found - losses[UNTOUCHED]) > 1e-3
        found = validated(capsys, ["--run", str(plain), "--prompt-text", str(tmp_path / "prompt.yaml")])
        assert losses[f"the words as text {place} the question, no textual prompts"] == pytest.approx(found, rel=1e-5)
    assert record["samples"] == 4
    assert record["adapter"] == hash_tensors(read_tensors(run / "adapter" / TENSOR_FILE))
    assert len(record["rows"]) == 9


def test_some_samples_are_chosen_by_a_seed(measured, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder, record = measured["hidden"]
    [run] = (folder / "outputs/m2pt_base").iterdir()
    given = ["prompts", "--run", str(run), "--score-words", "--samples", "3", "--output", str(tmp_path)]
    digests = set()
    for seed in ("0", "1"):
        assert main([*given, "--sample-seed", seed]) == 0
        found = json.loads((tmp_path / "words.json").read_text())
        assert found["samples"] == 3
        assert found["adapter"] == record["adapter"]
        digests.add(found["samples_sha256"])
    assert len(digests) == 2
    assert main([*given[:-3], "9"]) == 2
    assert "9 samples of 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("--samples", "3"), "--samples"),
        (("--sample-seed", "3"), "--sample-seed"),
        (("--score-words", "--samples", "-1"), "negative"),
        (("--score-words", "--data.validation_fraction", "0"), "no validation split"),
        (("--score-words", "--trainer.devices", "2"), "2 processes"),
    ],
)
def test_what_measures_nothing_is_refused(
    measured, capsys: pytest.CaptureFixture[str], tmp_path: Path, given: tuple[str, ...], named: str
) -> None:
    [run] = (measured["hidden"][0] / "outputs/m2pt_base").iterdir()
    assert main(["prompts", "--run", str(run), "--output", str(tmp_path / "new"), *given]) == 2
    message = capsys.readouterr().err
    assert named in message
    assert len(message.splitlines()) <= 3
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("method", "named"),
    [
        (["textual_length=0"], "no textual prompts"),
        (["textual_layers=[1,2]"], "the first layer with textual prompts is layer 1"),
    ],
)
def test_runs_without_rows_where_words_stand(tmp_path: Path, capsys, method: list[str], named: str) -> None:
    run = fitted(words(tmp_path, *method))[1]
    assert main(["prompts", "--run", str(run), "--score-words"]) == 2
    assert named in capsys.readouterr().err


def test_other_first_rows_leave_the_deeper_ones_or_let_the_first_flow_on() -> None:
    prompts = DeepPrompts([0, 1, 3], 4, 2, 5, dropout=0.5)
    prompts.initialise("normal", 1.0, torch.Generator().manual_seed(1))
    row = torch.randn(1, 2, 5)
    kept, alone = with_first_rows(prompts, row, True), with_first_rows(prompts, row, False)
    assert (kept.layers, alone.layers) == ([0, 1, 3], [0])
    assert torch.equal(kept.rows["3"], prompts.rows["3"])
    assert torch.equal(kept.rows["0"], row)
    assert torch.equal(alone.layer_rows()[0], row)
    assert alone.layer_rows()[1:] == [None, None, None]
    assert not torch.equal(prompts.rows["0"], row)
    assert not any(each.requires_grad for each in kept.parameters())


def test_words_are_no_signs_and_are_read_back() -> None:
    processor = small_processor()
    tokenizer = processor.tokenizer
    names = set(tokenizer.convert_ids_to_tokens(words_of(processor)))
    assert not names & set(SPECIAL)
    assert {"what", "red", ":"} <= names
    assert written(processor, tokenizer.convert_tokens_to_ids(["what", "red"])).is_read_back
    assert not written(processor, [tokenizer.unk_token_id, tokenizer.eos_token_id]).text.startswith("what")


def test_the_digest_of_samples_is_of_their_order() -> None:
    def digest(*names: str) -> str:
        scorer: Any = SimpleNamespace(samples=[SimpleNamespace(id=name) for name in names])
        return TextScorer.digest_of_samples(scorer)

    assert digest("a", "b") == hashlib.sha256(b"['a', 'b']").hexdigest()
    assert digest("b", "a") != digest("a", "b")


def record_with(losses: dict[str, float], is_read_back: bool = True) -> dict[str, Any]:
    return {
        "rows": {name: {"loss": loss} for name, loss in losses.items()},
        "words": {"text": "a b", "is_read_back": is_read_back},
    }


def test_notes_say_what_is_left_and_when_there_is_nothing_to_be_left() -> None:
    losses = {RUN: 1.0, KEPT: 1.5, FLOWING: 3.5, WITHOUT: 3.0, UNTOUCHED: 4.0}
    first, second = notes_of(record_with(losses))
    assert first.endswith(": a b")
    assert second == (
        "textual prompts lower the loss by 2.0000; of this their words keep 75% as layer 0's rows, deeper rows as "
        "tuned; -25% as layer 0's rows, none of their own in deeper layers"
    )
    notes = notes_of(record_with({**losses, RUN: 3.25}, is_read_back=False))
    assert "reads other tokens" in notes[1]
    assert "do not lower the loss" in notes[2]
