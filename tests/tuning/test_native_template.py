"""Tuning and answering in a model's own chat template: a tiny Qwen-like model in its real on-disk form."""

import json
import re
from pathlib import Path

import pytest

from data_modules.vsr import VSR
from experiments.commands.evaluate import main as evaluate
from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import deciding, run_folder
from experiments.runs.prepare import check_experiment
from lightning_m2pt.backbones.chat_template_files import processor_chat_template
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import IGNORED_LABEL
from lightning_m2pt.inputs.named_templates import template_named
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.runs.model_of_run import template_of_run
from lightning_m2pt.storage.adapter_folder import read_adapter_config
from tests.support.chat_templates import CHATML, chat_tokenizer
from tests.support.small_experiment import fitted, small_words
from tests.support.stored_backbone import PROJECTOR, TOWER, TOWER_CONFIG, store_backbone

QWEN2 = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 400,
    "max_position_embeddings": 512,
}
TEXT = "chat_template.jinja"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Returns words for an experiment on a stored model that brings a chat template."""
    model = tmp_path / "model"
    store_backbone(model, QWEN2)
    for path in (model / "language").glob("token*"):
        path.unlink()
    tokenizer = chat_tokenizer(begins=False)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(model / "language")
    ends = [tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.convert_tokens_to_ids("<|end|>")]
    (model / "language" / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    paths = {"vision_config": TOWER_CONFIG, "vision_weights": TOWER, "projector_weights": PROJECTOR}
    paths |= {"language_config": "language", "language_model": "language"}
    settings = [word for key, path in paths.items() for word in (f"--model.backbone.{key}", str(model / path))]
    VSR.write_fake(tmp_path / "vsr")
    arguments = {"root": str(tmp_path / "vsr"), "template": "native", "batch_size": 4, "max_new_tokens": 5}
    sets = json.dumps([{"class_path": "data_modules.vsr.VSR", "init_args": arguments}])
    return [*small_words(tmp_path, steps=3), *settings, "--data.template", "native", "--benchmarks", sets]


def test_tuned_and_asked_in_the_model_s_own_template(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    experiment, run = fitted(words)
    assert read_adapter_config(run / "adapter")["template"] == "native"
    batch = next(iter(experiment.data.train_dataloader()))
    tokenizer = experiment.data.processor.tokenizer
    samples = {sample.id: sample for sample in experiment.data.items()}
    for name, ids, labels in zip(batch.sample_ids, batch.input_ids, batch.labels, strict=True):
        turn = samples[name].turns[0]
        supervised = [int(label) for label in labels if label != IGNORED_LABEL]
        assert tokenizer.decode(supervised) == f"{turn.answer}<|im_end|>"
        text = tokenizer.decode([int(token) for token in ids if token >= 0])
        assert text.startswith("<|im_start|>system\nBe helpful.<|im_end|>\n<|im_start|>user\n")
        assert f"\n{turn.question}<|im_end|>\n<|im_start|>assistant\n{turn.answer}<|im_end|>\n" in text
    assert evaluate(["--run", str(run)]) == 0
    header = read_predictions(run / "predictions" / "vsr.jsonl").header
    chat_template = experiment.data.processor.chat_template
    assert header["template"] == "native"
    assert header["decoding"]["template_sha256"] == chat_template.digest()
    assert header["decoding"]["end_token_ids"] == [
        tokenizer.convert_tokens_to_ids(end) for end in ("<|im_end|>", "</s>", "<|end|>")
    ]
    assert "note:" not in capsys.readouterr().out
    text = Path(experiment.model.backbone.language_folder) / TEXT
    text.write_text(CHATML.replace("helpful", "brief"))
    with pytest.raises(BadInputError, match="decoding is"):
        evaluate(["--run", str(run)])
    assert evaluate(["--run", str(run), "--force"]) == 0
    assert re.search(r"note: tuned with the template native \(\w{8}\), asked in native \(", capsys.readouterr().out)


def test_the_template_s_text_decides_the_name_of_runs_that_use_it(words: list[str], tmp_path: Path) -> None:
    def named(*changes: str) -> Path:
        experiment = parse_experiment([*words, *changes])
        check_experiment(experiment)
        assert ("template_sha256" in deciding(experiment)) == (not changes)
        return run_folder(experiment)

    native, vicuna = named(), named("--data.template", "vicuna_v1")
    (tmp_path / "model/language" / TEXT).write_text(CHATML.replace("helpful", "brief"))
    assert named() != native
    assert named("--data.template", "vicuna_v1") == vicuna


def test_a_template_s_file_counts_by_what_it_says(words: list[str], tmp_path: Path) -> None:
    def named(folder: str, text: str) -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "own.yaml").write_text(text)
        experiment = parse_experiment([*words, "--data.template", str(tmp_path / folder / "own.yaml")])
        check_experiment(experiment)
        assert "template" not in deciding(experiment)["data"]["init_args"]
        return run_folder(experiment)

    first = named("here", 'before_answer: " A:"')
    assert named("there", '# Elsewhere.\nbefore_answer: " A:"') == first
    assert named("here", 'before_answer: " A: "') != first


def test_a_run_is_asked_in_its_template_s_file_again(words: list[str], tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text('before_answer: " A:"')
    _, run = fitted([*words, "--data.template", str(own), "--benchmarks", "[]"])
    assert read_adapter_config(run / "adapter")["template"] == "own.yaml"
    assert template_of_run(run) == template_named(str(own))


def test_wrong_files_are_refused(words: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "model/language"
    experiment = parse_experiment(words)
    settings = folder / "generation_config.json"
    for wrong in ({"eos_token_id": "two"}, {"eos_token_id": [True]}, {"eos_token_id": -1}):
        settings.write_text(json.dumps(wrong))
        with pytest.raises(BadInputError, match="eos_token_id is"):
            check_experiment(experiment)
    settings.unlink()
    (folder / TEXT).write_text("{% for")
    with pytest.raises(BadInputError, match="chat template cannot be used"):
        check_experiment(experiment)
    (folder / TEXT).unlink()
    with pytest.raises(BadInputError, match="no chat template"):
        check_experiment(experiment)


def test_a_processor_s_template_goes_before_its_tokenizer_s(tmp_path: Path) -> None:
    """The files in the library's order; named templates: the default one."""
    tokenizer = chat_tokenizer()
    image = tokenizer.convert_tokens_to_ids("<image>")

    def found() -> tuple[str, bool] | None:
        template = processor_chat_template(tmp_path, tokenizer, image)
        return template and (template.text, template.of_processor)

    assert found() is None
    tokenizer.chat_template = {"default": "of the tokenizer", "tool_use": "other"}
    assert found() == ("of the tokenizer", False)
    for name in ("processor_config.json", "chat_template.json"):
        (tmp_path / name).write_text(json.dumps({"chat_template": {"default": name}}))
        assert found() == (name, True)
    (tmp_path / TEXT).write_text("newest")
    assert found() == ("newest", True)
    with pytest.raises(BadInputError, match="no token 9999"):
        processor_chat_template(tmp_path, tokenizer, 9999)
    (tmp_path / TEXT).write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputError, match="cannot be read"):
        found()
