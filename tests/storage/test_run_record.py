"""run.json: sections do not disturb each other."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.runs import loading
from lightning_m2pt.storage.run_record import read_run_record, update_run_record


def test_sections_are_added_and_replaced(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert read_run_record(run) == {}
    update_run_record(run, "seed", 0)
    update_run_record(run, "versions", {"torch": "2.13.0"})
    update_run_record(run, "seed", 1)
    assert read_run_record(run) == {"seed": 1, "versions": {"torch": "2.13.0"}}
    assert [path.name for path in run.iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", ["", "[1]", "{"])
def test_a_damaged_record_is_named_and_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(BadInputError, match=r"run\.json"):
        update_run_record(tmp_path, "seed", 0)
    assert (tmp_path / "run.json").read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        '{"deciding": [1]}',
        '{"deciding": null}',
        '{"made_with": 5}',
        '{"made_with": ["start"]}',
        '{"completed": true}',
        '{"completed": {"seconds": "12"}}',
        '{"trainable": "all"}',
    ],
)
def test_a_section_of_another_form_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(BadInputError, match=r"run\.json: (deciding|made_with|completed|trainable).*another form"):
        read_run_record(tmp_path)


def test_a_start_says_what_decides_the_last_bits(tmp_path: Path) -> None:
    from experiments.configuration.cli import parse_experiment
    from experiments.runs.folder import made_with
    from tests.support.small_experiment import small_words

    start = made_with(parse_experiment(small_words(tmp_path)))
    assert start["instruction_set"] == torch.backends.cpu.get_cpu_capability()
    assert start["packages"]["torch"] == torch.__version__


@pytest.mark.parametrize(("sections", "is_noted"), [({}, True), ({"completed": {"seconds": 1.0}}, False)])
def test_an_adapter_of_a_step_before_the_last_is_used_with_a_note(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sections: dict, is_noted: bool
) -> None:
    monkeypatch.setattr(loading, "read_adapter_config", lambda _: {})
    update_run_record(tmp_path, "made_with", [{}])
    for name, section in sections.items():
        update_run_record(tmp_path, name, section)
    backbone = SimpleNamespace(dtype_name="float32")
    loading.say_differences(tmp_path / "adapter", cast(Backbone, backbone), [])
    assert ("stopped before its last step" in capfd.readouterr().out) == is_noted
