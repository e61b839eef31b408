"""An adapter's folder says all that another machine needs, and no path of this one; older folders still load."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from experiments.configuration.cli import Experiment, parse_experiment
from experiments.runs import from_python
from experiments.runs.tuning import save_tuned
from lightning_m2pt.backbones.embedded import embedded_backbone
from lightning_m2pt.backbones.origins.made import backbone_of, origin_in
from lightning_m2pt.backbones.origins.said import EMBEDDED_FILES
from lightning_m2pt.backbones.vision_language_model import VisionLanguageModel
from lightning_m2pt.configuration.paths import EMBEDDED
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.runs.adapter_method import adapter_method
from lightning_m2pt.runs.loading import load_with_adapter
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_folder import CONFIG_FILE, TENSOR_FILE, read_adapter_config, save_adapter
from lightning_m2pt.storage.adapter_manifest import CONFIG_DIGEST, config_digest
from lightning_m2pt.storage.adapter_template import adapter_template
from lightning_m2pt.tuning.module import TuningModule
from lightning_m2pt.tuning.optimizer import AdamW
from tests.support.adapters.no_paths import paths_said
from tests.support.python_objects import small_data
from tests.support.small_experiment import fitted, small_words
from tests.support.whole_models import llava_config, write_whole_model

OLD = Path(__file__).parents[2] / "storage" / "adapter_of_format_2"
TEMPLATE = 'before_question: "Q: "\nbefore_answer: "\\nA: "\nsystem: "Be brief.\\n"\n'
WORDS = 'question: "{question} Answer with one word."\n'
BEST = [{"class_path": "callbacks.best_adapter.BestAdapter", "init_args": {"monitor": "val/loss"}}]


def module_of(adapter: Path) -> TuningModule:
    """Makes base and method from an adapter's folder alone."""
    config, where = read_adapter_config(adapter), str(adapter / CONFIG_FILE)
    backbone = backbone_of(origin_in(config, where), dtype=config["base_dtype"])
    return TuningModule(backbone, adapter_method(config, where), AdamW(1e-3))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Path]:
    """A run with a best adapter, on a base of files, with a template and a prompt of files, all in a private folder."""
    folder = tmp_path_factory.mktemp("run") / "private_folder"
    for name, place in EMBEDDED_FILES.items():
        source, target = EMBEDDED / "testbed" / place, folder / "base" / place
        if name != "language_config":  # the model's own folder
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    (folder / "own.yaml").write_text(TEMPLATE)
    (folder / "words.yaml").write_text(WORDS)
    base = [f"--model.backbone.{name}={folder / 'base' / place}" for name, place in EMBEDDED_FILES.items()]
    words = ["--data.template", str(folder / "own.yaml"), "--prompt_text", str(folder / "words.yaml")]
    best = ["--data.validation_fraction", "0.5", "--trainer.callbacks", json.dumps(BEST)]
    best += ["--validate_every_n_steps", "1"]
    return fitted([*small_words(folder, steps=2), *base, *words, *best], folder / "outputs" / "run")


@pytest.mark.parametrize("name", ["adapter", "adapter_best"])
def test_nothing_of_this_machine_stands_in_a_runs_adapters(tuned: tuple[Experiment, Path], name: str) -> None:
    experiment, run = tuned
    config = read_adapter_config(run / name)
    assert paths_said(run / name, "private_folder") == []
    assert config["format"] == 3
    assert config["written_by"].startswith("lightning_m2pt ")
    assert config["base"] == {"kind": "files", "class": "OpenClipLlama", "arguments": {}}
    assert config["base_model_name_or_path"] == f"OpenClipLlama {config['base_fingerprint'][:16]}"
    assert adapter_template(config, "x") == experiment.data.template
    assert config["template"] == "own.yaml+words"
    shape = experiment.model.backbone.shape
    assert config["pictures"] == {
        "size": shape.image_size,
        "mean": list(shape.image_mean),
        "std": list(shape.image_std),
        "interpolation": shape.interpolation,
        "resize": shape.resize,
    }
    with pytest.raises(BadInputError, match="nothing names the base but its content"):
        module_of(run / name)


def test_the_page_names_every_key(tuned: tuple[Experiment, Path]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "adapters.md").read_text(encoding="utf-8")
    for config in (read_adapter_config(tuned[1] / "adapter_best"), read_adapter_config(OLD)):
        assert [key for key in (*config, *config.get("pictures", ())) if f"`{key}`" not in page] == []


def test_an_adapter_of_an_embedded_base_needs_nothing_else(tmp_path: Path) -> None:
    experiment, run = fitted(small_words(tmp_path, steps=1), tmp_path / "run")
    shutil.move(run / "adapter", tmp_path / "elsewhere")
    shutil.rmtree(run)
    made = module_of(tmp_path / "elsewhere")
    load_with_adapter(tmp_path / "elsewhere", made)
    tuned_tensors = experiment.model.method.named_tensors()
    for name, tensor in made.method.named_tensors().items():
        assert torch.equal(tensor, tuned_tensors[name])
    assert set(made.method.named_tensors()) == set(tuned_tensors)
    assert made.backbone.fingerprint() == experiment.model.backbone.fingerprint()


def test_what_python_saves_is_the_same(tmp_path: Path) -> None:
    module = TuningModule(embedded_backbone(), M2PT(1, 1, interaction=False), AdamW(1e-3))
    module.configure_model()
    data = small_data(tmp_path, order_seed=0)
    module.trainer = type("Trained", (), {"global_step": 0})()  # type: ignore[assignment]
    saved = from_python.save(module, data, tmp_path / "saved")
    config = read_adapter_config(saved)
    assert (config["format"], config["base"]["arguments"]) == (3, {"name": "testbed"})
    assert paths_said(saved) == []


def test_a_whole_model_says_its_librarys_pictures(tmp_path: Path) -> None:
    write_whole_model(tmp_path / "model", llava_config())
    backbone = VisionLanguageModel(str(tmp_path / "model"), dtype="float32")
    experiment = parse_experiment(["--config", "experiments/m2pt_base.yaml"])
    method = M2PT(1, 1, interaction=False)
    module = TuningModule(backbone, method, AdamW(1e-3))
    module.configure_model()
    experiment.model = module
    save_tuned(experiment, tmp_path / "adapter", 1)
    config = read_adapter_config(tmp_path / "adapter")
    assert config["pictures"]["resize"] == "CLIPImageProcessor"
    assert config["pictures"]["interpolation"] == "bicubic"
    assert paths_said(tmp_path / "adapter") == []
    again = TuningModule(VisionLanguageModel(str(tmp_path / "model"), dtype="float32"), M2PT(1, 1, interaction=False))
    load_with_adapter(tmp_path / "adapter", again)


def test_an_adapter_of_format_2_loads(tmp_path: Path) -> None:
    config = read_adapter_config(OLD)
    assert config["format"] == 2
    assert origin_in(config, "x").kind == "files"
    method = adapter_method(config, "x")
    module = TuningModule(embedded_backbone(), method, AdamW(1e-3))
    load_with_adapter(OLD, module, ["vicuna_v1"])
    saved = load_file(OLD / TENSOR_FILE)
    assert len(saved) == 2
    assert all(torch.equal(saved[name], tensor) for name, tensor in method.named_tensors().items())
    save_adapter(tmp_path / "again", method, AdapterBase("x", module.backbone.fingerprint(), "float32"), "")
    assert (tmp_path / "again" / TENSOR_FILE).read_bytes() == (OLD / TENSOR_FILE).read_bytes()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another kind of base": (lambda config: config["base"].update(kind="url"), "is no kind of base"),
    "a class of somebody's": (lambda config: config["base"].update({"class": "os.system"}), "is no backbone"),
    "an embedded name that leads out": (
        lambda config: config["base"].update(arguments={"name": "../x"}),
        "is no embedded backbone",
    ),
    "a template that asks for a file": (
        lambda config: config.update(
            template="x", template_content={"based_on": "/etc/x.yaml", "question": "{question}"}
        ),
        "does not say what its template",
    ),
    "a template's unknown key": (lambda config: config.update(template_content={"include": "x"}), "unknown key"),
    "another size of pictures": (lambda config: config["pictures"].update(size=99), "with size 99, which is 48 now"),
    "another mean": (lambda config: config["pictures"].update(mean=[0.5, 0.5, 0.51]), "with mean"),
    "another rule": (lambda config: config["pictures"].update(resize="squash"), "with resize 'squash'"),
    "a picture setting more": (lambda config: config["pictures"].update(crop=1), "with crop 1, which is None now"),
    "pictures of nonsense": (lambda config: config.update(pictures=[3]), "is no object"),
    "another checksum": (lambda config: config.update(tensors_sha256="0" * 64), "content is not what was saved"),
    "10 MB": (lambda config: config.update(note="x" * 10_000_000), "far too large"),
    "a tensor with a path for a name": (
        lambda config: config["tensors"].update({"../../x": {"dtype": "F32", "shape": [1]}}),
        "tensor ../../x is missing",
    ),
}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    module = TuningModule(embedded_backbone(), M2PT(1, 1, interaction=False), AdamW(1e-3))
    module.configure_model()
    module.trainer = type("Trained", (), {"global_step": 0})()  # type: ignore[assignment]
    return from_python.save(module, small_data(folder, order_seed=0), folder / "saved")


@pytest.mark.parametrize("what", [*CHANGES, "a flipped bit"])
def test_a_hostile_folder_is_refused_before_weights_load(
    embedded: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(embedded, tmp_path / "adapter")
    change, message = CHANGES.get(what, (None, "content is not what was saved"))
    if change is None:
        flip(tmp_path / "adapter" / TENSOR_FILE)
    else:
        config = json.loads((tmp_path / "adapter" / CONFIG_FILE).read_text())
        change(config)
        config[CONFIG_DIGEST] = config_digest(config)
        (tmp_path / "adapter" / CONFIG_FILE).write_text(json.dumps(config))
    module = TuningModule(embedded_backbone(), M2PT(1, 1, interaction=False), AdamW(1e-3))
    monkeypatch.setattr(type(module.backbone), "load", lambda _: pytest.fail("weights were loaded"))
    with pytest.raises(BadInputError, match=message) as refused:
        load_with_adapter(tmp_path / "adapter", module)
    assert len(str(refused.value).splitlines()) <= 3
    assert not module.backbone.is_loaded
