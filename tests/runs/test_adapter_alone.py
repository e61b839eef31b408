"""An adapter's folder by itself, on the base of an experiment: it answers and shows what the run did it comes from."""

import json
import shutil
from pathlib import Path

import pytest

from experiments.runs.loading import experiment_of_adapter
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.main import main
from lightning_m2pt.methods.adapter import Adapter
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.runs.adapter_settings import classes_by_name
from tests.support.small_experiment import run_with_a_set
from tests.support.whole_models import llava_config, write_whole_model

OTHER_METHOD = "experiments/projector.yaml"
LENGTHS = ("--model.method.visual_length", "3", "--model.method.textual_length", "2")
CHANGES = {
    "another base": lambda config: config.update(base_fingerprint="v2:0"),
    "other arguments": lambda config: config["arguments"].update(textual_length=3),
    "an argument that is none": lambda config: config["arguments"].update(length=3),
    "a name that is a word of its own": lambda config: config["arguments"].update({"x=1 --output_root": 3}),
    "a value that asks for another": lambda config: config["arguments"].update(visual_depth="${oc.env:HOME}"),
    "no arguments": lambda config: config.pop("arguments"),
    "an unknown method": lambda config: config.update(peft_type="TVP"),
    "another method": lambda config: config.update(peft_type="LORA"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_with_a_set(tmp_path_factory.mktemp("run"), *LENGTHS)


@pytest.fixture
def words(run: Path, tmp_path: Path) -> list[str]:
    """An adapter away from its run, and an experiment of another method on the same base, with the run's sets."""
    shutil.copytree(run / "adapter", tmp_path / "adapter")
    config = json.loads((run / "config.yaml").read_text())
    return [
        *("--adapter", str(tmp_path / "adapter"), "--config", OTHER_METHOD),
        *("--benchmarks", json.dumps(config["benchmarks"])),
    ]


def rows(predictions: Path) -> list[dict]:
    lines = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert lines[0]["toggles"]["visual_length"] == 3
    return lines


def test_answers_are_those_of_the_run_to_the_last_digit(run, words, tmp_path):
    assert main(["evaluate", "--run", str(run)]) == 0
    assert main(["evaluate", *words, "--output", str(tmp_path / "out")]) == 0
    of_run, alone = (rows(folder / "predictions" / "vsr.jsonl") for folder in (run, tmp_path / "out"))
    assert alone == of_run
    assert (tmp_path / "out" / "scores" / "vsr.json").read_bytes() == (run / "scores" / "vsr.json").read_bytes()
    without = ["--knock-out", "visual_prompts", "--output", str(tmp_path / "without")]
    assert main(["evaluate", *words, *without]) == 0
    assert main(["evaluate", "--run", str(run), "--knock-out", "visual_prompts"]) == 0
    (other,) = run.glob("evaluations/without-*/predictions/vsr.jsonl")
    assert rows(tmp_path / "without" / "predictions" / "vsr.jsonl") == rows(other)


def test_every_verb_of_a_run_takes_an_adapter(run, words, tmp_path, capsys):
    config = json.loads((run / "config.yaml").read_text())
    (benchmark,) = config["benchmarks"]
    one_set = [*words, "--data", json.dumps(benchmark)]
    assert main(["predict", *one_set, "--output", str(tmp_path / "predicted")]) == 0
    assert main(["test", *one_set, "--output", str(tmp_path / "predicted")]) == 0
    assert rows(tmp_path / "predicted" / "predictions" / "vsr.jsonl")
    out = ["--output", str(tmp_path / "figures")]
    assert main(["prompts", *words, *out]) == 0
    assert main(["prompts", "--run", str(run), "--output", str(tmp_path / "of_run")]) == 0
    alone, of_run = (json.loads((tmp_path / name / "prompts.json").read_text()) for name in ("figures", "of_run"))
    assert alone["textual_prompts"] == of_run["textual_prompts"]
    capsys.readouterr()
    assert main(["params", *words, "--output", str(tmp_path / "params.json")]) == 0
    parts = json.loads((tmp_path / "params.json").read_text())["parts"]
    assert {part["name"] for part in parts} == {"visual_prompts", "textual_prompts", "interaction"}


@pytest.mark.slow
def test_attention_and_attribution_take_an_adapter(run, words, tmp_path):
    assert main(["evaluate", "--run", str(run)]) == 0
    question = ["--sample", f"vsr:{rows(run / 'predictions' / 'vsr.jsonl')[1]['id']}"]
    shown = []
    for name, tuned in {"run": ["--run", str(run)], "alone": words}.items():
        out = ["--output", str(tmp_path / name)]
        assert main(["attention", *tuned, *question, "--layer", "0", *out]) == 0
        assert main(["attribution", *tuned, *question, *out]) == 0
        shown.append({path.name: path.read_bytes() for path in (tmp_path / name).glob("*.json")})
    assert shown[0] == shown[1]
    assert len(shown[0]) == 2


def test_validation_is_that_of_the_run(run, words, tmp_path, capsys):
    config = json.loads((run / "config.yaml").read_text())
    data = ["--data.root", config["data"]["init_args"]["root"], "--data.validation_file", "null"]
    data += ["--data.validation_fraction", "0.5", "--data.questions_per_sample", "1"]
    measured = []
    for which in (["--run", str(run)], words):
        assert main(["validate", *which, *data]) == 0
        measured.append(capsys.readouterr().out.splitlines()[-1])
    assert measured[0] == measured[1]


@pytest.mark.parametrize("name", CHANGES)
def test_a_wrong_adapter_is_refused_before_weights_load(words, tmp_path, capsys, name):
    path = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    CHANGES[name](config)
    path.write_text(json.dumps(config))
    assert main(["evaluate", *words, "--output", str(tmp_path / "out")]) == 2
    assert 1 <= len(capsys.readouterr().err.splitlines()) <= 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (lambda words: words, "--output DIR"),
        (lambda words: [*words[:2], "--output", "x"], "--benchmarks FILE"),
        (lambda words: [*words, "--output", "x", "--run", "y"], "not allowed with"),
        (lambda words: ["--config", OTHER_METHOD, "--output", "x"], "--output with --adapter"),
        (lambda words: ["--adapter", "/no/such", *words[2:], "--output", "x"], "/no/such"),
        (lambda words: [*words, "--output", "x", "--model.method.visual_length", "4"], "visual_length is 3"),
    ],
    ids=["no output", "no sets", "a run as well", "an output of no adapter", "no adapter", "another length"],
)
def test_flags_that_do_not_go_together(words, capsys, given, named):
    assert main(["evaluate", *given(words)]) == 2
    shown = capsys.readouterr().err
    assert named in shown
    assert len(shown.splitlines()) <= 3


METHODS = {
    "m2pt": M2PT(4, 3, visual_layers=[0, 2], visual_rows_to_text="none", lm_head=True),
    "aprompt": APrompt(query_prompts=False),
    "prefix": PrefixTuning(reparameterisation=None, interaction=False),
    "lora": Lora(rank=3, vision=True),
    "peft_tuner": PeftTuner("lora", {"rank_pattern": {"q_proj": 3}}, {"target_modules": ["c_fc"]}),
    "adapter": Adapter(size=5),
    "layernorm": LayerNormTuning(vision=True),
    "full": Full(vision=False),
    "pixel_prompt": PixelPrompting(border=0.2, compose="shrink"),
    "lora+aprompt": Combined([Lora(rank=2, interaction=False), APrompt()]),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_comes_back_from_its_adapters_configuration(tmp_path, monkeypatch, name):
    method = METHODS[name]
    monkeypatch.setattr(
        "lightning_m2pt.runs.adapter_settings.read_adapter_config",
        lambda _: {"peft_type": method.name.upper(), "arguments": json.loads(json.dumps(method.adapter_config()))},
    )
    model = experiment_of_adapter(tmp_path, ["--config", "experiments/frozen.yaml"]).model
    assert type(model.method) is type(method)
    assert model.method.name == name
    assert model.method.adapter_config() == method.adapter_config()


def test_the_library_has_the_methods_that_can_be_tuned():
    assert set(classes_by_name()) == {*METHODS, "frozen"} - {"lora+aprompt"}


@pytest.mark.slow
def test_an_adapter_of_a_whole_model(tmp_path):
    write_whole_model(tmp_path / "model", llava_config())
    backbone = f"{VisionLanguageModel.__module__}.{VisionLanguageModel.__name__}"
    init = {"model": "model", "dtype": "float32"}
    (tmp_path / "model.yaml").write_text(
        json.dumps({"model": {"backbone": {"class_path": backbone, "init_args": init}}})
    )
    base = ["--config", str(tmp_path / "model.yaml")]
    run = run_with_a_set(tmp_path / "run", *base, *LENGTHS)
    assert main(["evaluate", "--run", str(run)]) == 0
    benchmarks = json.dumps(json.loads((run / "config.yaml").read_text())["benchmarks"])
    words = ["--adapter", str(run / "adapter"), "--config", OTHER_METHOD, *base, "--benchmarks", benchmarks]
    assert main(["evaluate", *words, "--output", str(tmp_path / "out")]) == 0
    assert rows(tmp_path / "out" / "predictions" / "vsr.jsonl") == rows(run / "predictions" / "vsr.jsonl")
