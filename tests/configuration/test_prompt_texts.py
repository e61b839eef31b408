"""``--prompt-text FILE``: what it is put around, what it does to names, and what is refused before anything loads."""

import json
from pathlib import Path

import pytest

from data_modules.vsr import VSR
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs.folder import deciding, run_folder
from experiments.runs.prepare import check_experiment
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import RewordedTemplate
from lightning_m2pt.inputs.reworded_template import PromptText
from lightning_m2pt.inputs.templates import PLAIN, VICUNA_V1
from tests.support.small_experiment import small_words

BRIEF = "question: '{question} Answer with one word.'\n"
TEXT = PromptText("{question} Answer with one word.")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Returns words of an experiment that is tuned in one template and asked in another."""
    VSR.write_fake(tmp_path / "vsr")
    arguments = {"root": str(tmp_path / "vsr"), "template": "plain", "batch_size": 4, "max_new_tokens": 5}
    sets = json.dumps([{"class_path": "data_modules.vsr.VSR", "init_args": arguments}])
    return [*small_words(tmp_path), "--benchmarks", sets]


def file_of(folder: Path, text: str = BRIEF, name: str = "brief.yaml") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def checked(words: list[str]) -> Experiment:
    experiment = parse_experiment(words)
    check_experiment(experiment)
    return experiment


def test_it_stands_on_top_of_every_set_s_own_template(words: list[str], tmp_path: Path) -> None:
    experiment = checked([*words, "--prompt-text", file_of(tmp_path)])
    assert experiment.data.template == RewordedTemplate("vicuna_v1+brief", VICUNA_V1, TEXT)
    assert experiment.benchmarks[0].template == RewordedTemplate("plain+brief", PLAIN, TEXT)
    assert experiment.config["prompt_text"] == str(tmp_path / "brief.yaml")
    batch = next(iter(experiment.data.train_dataloader()))
    tokens = experiment.data.processor.tokenizer.decode([int(token) for token in batch.input_ids[0] if token >= 0])
    assert "answer with one word . assistant :" in tokens
    based = file_of(tmp_path, f"based_on: plain\n{BRIEF}", "based.yaml")
    assert checked([*words, "--prompt_text", based]).data.template == RewordedTemplate("plain+based", PLAIN, TEXT)


def test_a_run_s_name_knows_the_words_and_not_where_they_lie(words: list[str], tmp_path: Path) -> None:
    def named(*more: str) -> tuple[Path, dict[str, object]]:
        experiment = checked([*words, *more])
        return run_folder(experiment), deciding(experiment)

    without, before = named()
    worded, decides = named("--prompt-text", file_of(tmp_path / "here"))
    assert worded != without
    assert {key: value for key, value in decides.items() if key != "template_sha256"} == before
    elsewhere = file_of(tmp_path / "there", f"# A note.\n{BRIEF}", "other.yml")
    assert named(f"--prompt-text={elsewhere}")[0] == worded
    assert named("--prompt-text", file_of(tmp_path, "question: '{question}'"))[0] == without
    as_template = f"based_on: vicuna_v1\n{BRIEF}"
    own, its = named("--data.template", file_of(tmp_path, as_template, "as_template.yaml"))
    assert its["template_sha256"] == decides["template_sha256"]
    assert own != without


def test_a_file_names_it_as_seen_from_itself(words: list[str], tmp_path: Path) -> None:
    file_of(tmp_path / "texts")
    (tmp_path / "own.yaml").write_text("prompt_text: texts/brief.yaml\n")
    experiment = checked([*words, "--config", str(tmp_path / "own.yaml")])
    assert experiment.config["prompt_text"] == str(tmp_path / "texts/brief.yaml")
    assert isinstance(experiment.data.template, RewordedTemplate)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("question: 'Answer with one word.'", "stands 0 times"),
        ("question: '{question} Look closely'", "the tokenizer does not know 'Look', 'closely'"),
        ("question: '{question}</s>'", "'</s>' stands in the text"),
        ("system: 'please answer'", "plain cannot take a system text"),
        ("based_on: native\nquestion: 'a {question}'", "the model has no chat template"),
        ("before_answer: 'a'", "unknown key"),
    ],
)
def test_what_is_refused_before_weights_load(text: str, said: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=said) as refused:
        checked([*words, "--prompt-text", file_of(tmp_path, text)])
    assert refused.value.where
    assert refused.value.expected


def test_files_and_flags_that_are_none(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot be read"):
        parse_experiment([*words, "--prompt-text", str(tmp_path / "none.yaml")])
    with pytest.raises(BadInputError, match="a value is missing"):
        parse_experiment([*words, "--prompt-text"])
    with pytest.raises(BadInputError, match="null is no value of this key"):
        parse_experiment([*words, "--prompt-text", "null"])
    template = file_of(tmp_path, f"based_on: plain\n{BRIEF}", "template.yaml")
    with pytest.raises(BadInputError, match="has a prompt's words already"):
        parse_experiment([*words, "--data.template", template, "--prompt-text", file_of(tmp_path)])
