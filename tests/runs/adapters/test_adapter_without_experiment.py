"""An adapter that says its base needs no experiment: words name sets, and the answers are those of its run."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from PIL import Image

from data_modules.vsr import VSR
from experiments.commands.questions_of_sets import tuned_with_sets
from experiments.configuration.cli import parse_experiment
from experiments.runs.loading import experiment_of_adapter
from experiments.runs.tuning import save_tuned
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.main import main
from lightning_m2pt.methods.aprompt import APrompt
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.runs.model_of_adapter import model_of_adapter
from lightning_m2pt.storage.adapter_folder import CONFIG_FILE
from lightning_m2pt.tuning.module import TuningModule
from tests.support.small_experiment import run_with_a_set
from tests.support.whole_models import llava_config, write_whole_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LENGTHS = ("--model.method.visual_length", "3", "--model.method.textual_length", "2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_with_a_set(tmp_path_factory.mktemp("run"), *LENGTHS)


@pytest.fixture
def adapter(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run / "adapter", tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def sets(run: Path) -> str:
    return json.dumps(json.loads((run / "config.yaml").read_text())["benchmarks"])


def test_it_answers_as_its_run_does(run: Path, adapter: Path, sets: str, tmp_path: Path) -> None:
    words = ["--adapter", str(adapter), "--output"]
    assert main(["evaluate", "--run", str(run)]) == 0
    assert main(["evaluate", *words, str(tmp_path / "out"), "--benchmarks", sets]) == 0
    (benchmark,) = json.loads(sets)
    assert main(["predict", *words, str(tmp_path / "predicted"), "--data", json.dumps(benchmark)]) == 0
    for folder in ("out", "predicted"):
        answered = tmp_path / folder / "predictions" / "vsr.jsonl"
        assert answered.read_bytes() == (run / "predictions" / "vsr.jsonl").read_bytes()
    assert main(["prompts", *words, str(tmp_path / "figures")]) == 0
    assert json.loads((tmp_path / "figures" / "prompts.json").read_text())["textual_prompts"]
    assert main(["params", "--adapter", str(adapter), "--output", str(tmp_path / "params.json")]) == 0


@pytest.mark.slow
def test_attention_of_an_own_question(run: Path, adapter: Path, tmp_path: Path) -> None:
    picture = tmp_path / "red.png"
    Image.new("RGB", (60, 40), (220, 30, 30)).save(picture)
    asked = ["--image", str(picture), "--question", "Is it red?", "--layer", "0"]
    shown = []
    for name, tuned in {"run": ["--run", str(run)], "alone": ["--adapter", str(adapter)]}.items():
        assert main(["attention", *tuned, *asked, "--output", str(tmp_path / name)]) == 0
        shown.append({path.name: path.read_bytes() for path in (tmp_path / name).glob("*.safetensors")})
    assert shown[0] == shown[1]
    assert shown[0]


@pytest.mark.parametrize(
    ("verb", "words", "named"),
    [
        ("evaluate", (), "--benchmarks FILE"),
        ("evaluate", ("--benchmarks", "vsr"), "--benchmarks FILE"),
        ("predict", (), "is no evaluation set"),
        ("validate", (), "--data CLASS"),
    ],
    ids=["no sets", "a name of no set", "no set", "no data"],
)
def test_what_is_missing_is_said(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, words: tuple[str, ...], named: str
) -> None:
    output = [] if verb == "validate" else ["--output", str(tmp_path / "out")]
    assert main([verb, "--adapter", str(adapter), *output, *words]) == 2
    shown = capsys.readouterr().err
    assert named in shown
    assert len(shown.splitlines()) <= 3
    assert not (tmp_path / "out").exists()


def test_a_base_of_files_needs_an_experiment(
    adapter: Path, sets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((adapter / CONFIG_FILE).read_text())
    config["base"] = {"kind": "files", "class": "OpenClipLlama", "arguments": {}}
    (adapter / CONFIG_FILE).write_text(json.dumps(config))
    words = ["--adapter", str(adapter), "--output", str(tmp_path / "out")]
    for verb in (["evaluate", *words, "--benchmarks", sets], ["prompts", *words]):
        assert main(verb) == 2
        assert "--config FILE" in capsys.readouterr().err
    assert model_of_adapter(adapter) is None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("base_dtype", "${model.method}", "is no type of weights"),
        ("base_dtype", "float16", "is no type of weights"),
        ("base_dtype", ["float32"], "is no type of weights"),
        ("base_quantization", "${oc.env:HOME}", "packs nothing"),
        ("base_quantization", {"a": 1}, "packs nothing"),
        ("base_quantization", "nf4", "are not packed"),
    ],
)
def test_no_value_of_an_adapter_becomes_a_setting_unseen(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: object, said: str
) -> None:
    config = json.loads((adapter / CONFIG_FILE).read_text())
    (adapter / CONFIG_FILE).write_text(json.dumps({**config, key: value}))
    for verb in ("evaluate", "prompts"):
        assert main([verb, "--adapter", str(adapter), "--output", str(tmp_path / "out")]) == 2
        shown = capsys.readouterr().err
        assert said in shown
        assert f"{CONFIG_FILE}: {key}" in shown
        assert len(shown.splitlines()) <= 3


def test_a_method_of_ones_own_needs_an_experiment(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((adapter / CONFIG_FILE).read_text())
    (adapter / CONFIG_FILE).write_text(json.dumps({**config, "peft_type": "OWN"}))
    for verb in ("evaluate", "prompts"):
        assert main([verb, "--adapter", str(adapter), "--output", str(tmp_path / "out")]) == 2
        assert "OWN is no method of the library" in capsys.readouterr().err


def test_a_base_of_the_hub_is_the_one_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    write_whole_model(tmp_path / "cache" / "models--org--name" / "snapshots" / COMMIT, llava_config())
    backbone = VisionLanguageModel("hub:org/name", revision=COMMIT, dtype="float32", quantization="int8")
    experiment = parse_experiment(["--config", "experiments/m2pt_base.yaml"])
    experiment.model = TuningModule(backbone, Combined([APrompt(2, 2), LayerNormTuning(interaction=False)]))
    experiment.model.configure_model()
    save_tuned(experiment, tmp_path / "adapter", 1)
    VSR.write_fake(tmp_path / "vsr")
    one_set = {"class_path": "data_modules.vsr.VSR", "init_args": {"root": str(tmp_path / "vsr"), "template": "plain"}}
    for made in (
        experiment_of_adapter(tmp_path / "adapter", ["--benchmarks", json.dumps([one_set])]).model,
        tuned_with_sets(None, tmp_path / "adapter", ["--benchmarks", json.dumps([one_set])], None).model,
        model_of_adapter(tmp_path / "adapter"),
    ):
        assert made is not None
        assert made.backbone.origin() == backbone.origin()
        assert made.backbone.fingerprint() == backbone.fingerprint()
        assert (made.backbone.dtype_name, made.backbone.quantization) == ("float32", "int8")
        assert made.method.adapter_config() == experiment.model.method.adapter_config()
