"""Evaluation sets as words of the command line: every set once, each evaluation in a folder of its own, own places."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.commands.answer import decides
from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import short_hash
from lightning_m2pt.commands.attention import say_missing_words
from lightning_m2pt.errors import BadInputError
from tests.support.small_experiment import BASE, small_words


def sets(*templates: str) -> str:
    return json.dumps(
        [{"class_path": "data_modules.vsr.VSR", "init_args": {"root": "vsr", "template": name}} for name in templates]
    )


@pytest.mark.parametrize("templates", [("vicuna_v1", "plain"), ("plain", "plain")])
def test_a_set_that_is_there_twice_is_refused_because_one_would_replace_the_other(
    tmp_path: Path, templates: tuple[str, ...]
) -> None:
    with pytest.raises(BadInputError, match="the set 'vsr' is there twice") as caught:
        parse_experiment([*small_words(tmp_path), "--benchmarks", sets(*templates)])
    assert caught.value.where == "command line: benchmarks"


def test_a_set_answered_in_another_type_has_a_folder_of_its_own(tmp_path: Path) -> None:
    words = ["--config", BASE, "--benchmarks", "[]", "--data", json.dumps(json.loads(sets("plain"))[0])]
    own, other = (parse_experiment([*words, *more]) for more in ([], ["--model.backbone.dtype", "bfloat16"]))
    (tmp_path / "config.yaml").write_text(json.dumps(own.config))
    arguments = {**own.config["data"]["init_args"], "root": "vsr"}
    former = {"class_path": own.config["data"]["class_path"], "init_args": arguments}
    assert decides(tmp_path, own) == former, "runs of before keep their folders"
    assert short_hash(decides(tmp_path, other)) != short_hash(decides(tmp_path, own))


def test_a_word_that_nothing_is_drawn_for_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    sample = SimpleNamespace(question=SimpleNamespace(id="test/1"), sides=[SimpleNamespace(tokens=[" Cat", "?"])])
    say_missing_words(sample, ["cat"])  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""
    say_missing_words(sample, ["cat", "dog"])  # type: ignore[arg-type]
    assert "no token of test/1 is dog" in capsys.readouterr().out
