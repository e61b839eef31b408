"""``m2pt templates``: losses are those of ``m2pt validate`` with the same words, and what is written is used again."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.commands.templates import main as templates
from experiments.commands.templates import table_of
from experiments.commands.validate import main as validate
from experiments.runs.halving import Sums
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import read_prompt
from lightning_m2pt.inputs.reworded_template import PromptText
from lightning_m2pt.inputs.text_lists import read_texts, shipped_lists
from lightning_m2pt.report.tables.formats import terminal
from lightning_m2pt.report.tables.template_spread import spread_of, template_spread_notes
from lightning_m2pt.runs.evaluated import EvaluatedRun, Group
from tests.support.small_experiment import small_words

LIST = """\
brief: "{question} answer with one word."
system: {question: "please: {question}", system: "chat with a polite assistant."}
last: "{question} yes or no?"
"""


def listed(folder: Path, text: str = LIST) -> str:
    (folder / "list.yaml").write_text(text)
    return str(folder / "list.yaml")


def test_losses_are_those_of_a_validation_with_the_same_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*small_words(tmp_path, config="experiments/frozen.yaml"), "--data.validation_fraction", "0.5"]
    assert templates(["--texts", listed(tmp_path), *words]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "outputs/frozen/templates"
    record = json.loads((folder / "templates.json").read_text())
    assert list(record["texts"]) == ["without words", "brief", "system", "last"]
    number = record["samples"]
    assert f"texts on samples: 4 on {-(-number // 2)}, 2 on {number};" in said
    assert record["spread"]["samples"] == -(-number // 2)
    losses = {name: found["loss"] for name, found in record["texts"].items() if found["samples"] == number}
    assert record["chosen"] == min(losses, key=lambda name: losses[name])
    assert "without words" in losses
    for name in losses:
        prompt = tmp_path / "one.yaml"
        prompt.write_text(
            json.dumps({key: value for key, value in record["texts"][name].items() if key in ("question", "system")})
        )
        assert validate([*words, "--prompt-text", str(prompt)]) == 0
        measured = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert measured["val/loss"] == pytest.approx(losses[name], rel=1e-5)
        assert measured["val/answer_accuracy"] == pytest.approx(record["texts"][name]["answer_accuracy"])
    chosen = read_prompt(folder / "chosen.yaml")
    assert chosen.text == {**read_texts(listed(tmp_path)), "without words": read_prompt_text()}[record["chosen"]]
    run = EvaluatedRun(tmp_path / "outputs/frozen/one", tmp_path / "outputs/frozen/one", {}, {})
    (note,) = template_spread_notes([Group("frozen", [run]), Group("again", [run])])
    assert note.startswith(f"frozen, words around the question: 4 texts on the same {-(-number // 2)} validation")
    (folder / "templates.json").write_text('{"spread": {}}')
    with pytest.raises(BadInputError, match="figures of the templates are damaged"):
        template_spread_notes([Group("frozen", [run])])


def read_prompt_text() -> object:
    return read_texts("testbed")["as_it_is"]


def test_spread_by_value() -> None:
    found = spread_of([1.0, 2.0, 6.0])
    assert (found["mean"], found["least"], found["greatest"]) == (3.0, 1.0, 6.0)
    assert found["deviation"] == pytest.approx(7.0**0.5)


@pytest.mark.parametrize("name", shipped_lists())
def test_lists_that_come_with_the_package(name: str) -> None:
    texts = read_texts(name)
    assert len(texts) >= 10
    assert sum(text.says_nothing for text in texts.values()) == 1


@pytest.mark.parametrize(
    ("text", "said", "where"),
    [
        ('a: "{question} b"', "1 texts to compare", "list.yaml"),
        ('a: "{question} b"\nc: "{question} b"', "the same text as a", ": c"),
        ('a: "{question} b"\nc: "b"', "stands 0 times", ": c"),
        ('a: "{question} b"\nc: 3', "3 is no text", ": c"),
        ('a: "{question} b"\nc/d: "{question}"', "is no name for a text", "list.yaml"),
        ('a: "{question} b"\nc: {question: "{question}", answer: "b"}', "unknown key", ": c"),
    ],
)
def test_lists_that_are_none(text: str, said: str, where: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=said) as refused:
        read_texts(listed(tmp_path, text))
    assert refused.value.where.endswith(where)


def test_what_is_refused_before_weights_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_m2pt.tuning.module.TuningModule.configure_model", lambda self: pytest.fail("loaded"))
    words = [*small_words(tmp_path, config="experiments/frozen.yaml"), "--data.validation_fraction", "0.5"]
    with pytest.raises(BadInputError, match="there is no list 'none'"):
        templates(["--texts", "none", *words])
    with pytest.raises(BadInputError, match="100 samples of"):
        templates(["--texts", listed(tmp_path), "--samples", "100", *words])
    with pytest.raises(BadInputError, match="the tokenizer does not know"):
        templates(["--texts", "general", *words])
    with pytest.raises(BadInputError, match="2 processes are configured"):
        templates(["--texts", listed(tmp_path), *words, "--trainer.devices", "2"])
    long = " ".join(["yes"] * 2_000)
    with pytest.raises(BadInputError, match="tokens"):
        templates(["--texts", listed(tmp_path, f'{LIST}\nlong: "{{question}} {long}"'), *words])
    with pytest.raises(BadInputError, match="there is no validation split"):
        templates(["--texts", listed(tmp_path), *small_words(tmp_path, config="experiments/frozen.yaml")])


def test_the_table_fits_a_terminal_and_says_when_no_text_is_better() -> None:
    texts = {"as_it_is": PromptText(), "long": PromptText("see the image and name its objects. {question} answer now.")}
    measured = {"as_it_is": Sums(10.0, 10, 6, 10, 90), "long": Sums(12.0, 10, 5, 10, 90)}
    spread = {"texts": 2, "samples": 10, "loss": spread_of([1.0, 1.2]), "answer_accuracy": spread_of([0.6, 0.5])}
    record: dict[str, Any] = {"chosen": "as_it_is", "texts": {"as_it_is": {}, "long": {}}, "spread": spread}
    table = table_of(texts, measured, record, "as_it_is", 80)
    assert [row[-1] for row in table.rows] == ["{question}", "see the image and name …"]
    assert table.notes[-1] == "chosen: the question as it is, which no text beats on all samples"
    assert max(map(len, terminal([table], 80).splitlines())) <= 80
    better = table_of(texts, measured, {**record, "chosen": "long"}, "as_it_is", 200)
    assert better.rows[1][-1] == "see the image and name its objects. {question} answer now."
    assert "loss +0.2000, answer accuracy -10.0%" in better.notes[-1]
