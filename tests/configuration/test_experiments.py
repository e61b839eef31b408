"""Every YAML below experiments/ is one of seven kinds, is counted, parses, and does what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from experiments.alignment.settings import ALIGNMENTS
from experiments.commands.evaluate import main as evaluate
from experiments.commands.params import count
from experiments.configuration.cli import parse_experiment
from experiments.runs.evaluation import evaluate_frozen, evaluate_tuned
from experiments.runs.loading import experiment_of_run, load_run
from experiments.runs.prepare import check_experiment
from lightning_m2pt.configuration.interpolation import interpolated
from lightning_m2pt.configuration.paths import EMBEDDED as EMBEDDED_FOLDER
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main
from lightning_m2pt.methods.trained_parameters import assert_same_set, trained_parameters
from lightning_m2pt.storage.adapter_folder import declared_tensors
from lightning_m2pt.system.tensor_hashes import hash_tensors
from tests.backbones.test_rebuilt_backbone import SHIPPED
from tests.support.small_experiment import BASE, checked, fitted, small_words
from tests.support.towers.real_pair import store_real_pair
from tests.support.towers.stored_pairs import store_pair
from tests.support.whole_models import idefics3_config, llava_config, onevision_config, qwen_config, write_whole_model

FOLDER = Path("experiments")
EXPERIMENTS = sorted(FOLDER.glob("*.yaml"))
STRATEGIES = sorted(FOLDER.glob("strategies/*.yaml"))
BACKBONES = sorted(FOLDER.glob("backbones/*.yaml"))
EMBEDDED = [path for path in BACKBONES if "OpenClipLlama" in path.read_text()]
WHOLE = {
    "llava_1_5_7b": ("llava-1.5-7b-hf", llava_config),
    "llava_onevision_0_5b": ("llava-onevision-qwen2-0.5b-ov-hf", onevision_config),
    "smolvlm_256m": ("SmolVLM-256M-Instruct", idefics3_config),
    "qwen2_5_vl_3b": ("Qwen2.5-VL-3B-Instruct", qwen_config),
}
"""Backbones that are folders below M2PT_MODELS, with the name of each and what its configuration is like."""
PAIRS = {
    "clip_l336_vicuna_7b": ("clip-vit-large-patch14-336", "clip", "vicuna-7b-v1.5"),
    "siglip_so400m_smollm2_1_7b": ("siglip-so400m-patch14-384", "siglip", "SmolLM2-1.7B-Instruct"),
    "smollm2_dinov2": ("smollm2_dinov2/vision", "dinov2", "smollm2_dinov2/language"),
}
"""Backbones that are pairs of such folders: the tower's, its kind, the language model's."""
SWEEPS = sorted(FOLDER.glob("sweeps/*.yaml"))
PROMPT_TEXTS = sorted(FOLDER.glob("sweeps/prompt_texts/*.yaml"))
PARTS = sorted(FOLDER.glob("parts/*.yaml"))
ALIGNMENT = sorted(FOLDER.glob("alignment/*.yaml"))
"""What ``m2pt backbone`` trains a projector by; ``tests/alignment`` runs them."""
TESTBED = [path for path in EXPERIMENTS if "include: parts/testbed.yaml" in path.read_text()]
REAL_PAIR = [path for path in EXPERIMENTS if "include: parts/smollm2.yaml" in path.read_text()]
STEPS = dict.fromkeys(TESTBED, 300) | dict.fromkeys(REAL_PAIR, 192)


@pytest.fixture(autouse=True, scope="module")
def models(tmp_path_factory):
    """The experiments of the real pair say what they train to whoever has its files; here are small ones."""
    folder = tmp_path_factory.mktemp("models")
    store_real_pair(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("M2PT_MODELS", str(folder))
        yield folder


def test_every_yaml_is_of_a_known_kind_and_counted():
    assert sorted(FOLDER.rglob("*.yaml")) == sorted(
        [*EXPERIMENTS, *STRATEGIES, *BACKBONES, *SWEEPS, *PROMPT_TEXTS, *PARTS, *ALIGNMENT]
    )
    assert len(EXPERIMENTS) == 53
    assert len(STRATEGIES) == 4
    assert len(EMBEDDED) == 2
    assert {path.stem for path in BACKBONES} == {path.stem for path in EMBEDDED} | set(WHOLE) | set(PAIRS)
    assert len(TESTBED) == 23
    assert len(REAL_PAIR) == 13
    assert len(PARTS) == 19
    assert [path.stem for path in ALIGNMENT] == list(ALIGNMENTS)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_says_its_method_and_leaves_the_rest_to_a_part(path):
    lines = path.read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert lines[: len(head)] == head
    assert path.stem in " ".join(head)  # the command
    assert len(lines) <= 20
    said = yaml.safe_load(path.read_text())
    assert list(said) == ["include", "model"]
    assert set(said["model"]) <= {"backbone", "method", "optimizer", "gradient_norm", "regularisers"}
    assert set(said["model"].get("backbone", {}).get("init_args", {})) <= {"activation_checkpointing"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiments_parse_and_count_without_weights(path):
    experiment = parse_experiment(["--config", str(path)])
    assert experiment.name == path.stem
    assert len(experiment.benchmarks) == 8
    assert {part["name"] for part in count(experiment.model)["parts"]} == set(experiment.model.method.part_names())


@pytest.mark.parametrize("path", PROMPT_TEXTS, ids=lambda path: path.stem)
def test_the_embedded_backbones_read_every_word_of_a_sweeps_prompts(path):
    experiment = parse_experiment(["--config", BASE, "--prompt-text", str(path)])
    experiment.connect()
    assert experiment.data.processor.bound(experiment.data.template).digest


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.stem)
def test_strategies_combine_with_any_experiment(path):
    assert list(yaml.safe_load(path.read_text())) == ["trainer"]
    for experiment in EXPERIMENTS:
        parsed = parse_experiment(["--config", str(experiment), "--config", str(path)])
        assert parsed.config["trainer"]["strategy"] != "auto"
        assert parsed.config["trainer"]["max_steps"] == STEPS.get(experiment, -1)


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: path.stem)
def test_backbones_take_the_place_of_any_testbed_experiments(path):
    chosen = yaml.safe_load(path.read_text())
    assert list(chosen) == ["model"]
    assert list(chosen["model"]) == ["backbone"]
    assert f"${{embedded:{path.stem}}}/" in json.dumps(chosen)
    for experiment in TESTBED:
        words = ["--config", str(experiment), "--config", str(path)]
        if path.stem not in SHIPPED:
            with pytest.raises(BadInputError, match=f"{path.stem}/README.md"):
                parse_experiment(words)
            continue
        backbone = parse_experiment(words).config["model"]["backbone"]
        wanted = interpolated(chosen)["model"]["backbone"]["init_args"]
        assert {key: backbone["init_args"][key] for key in wanted} == wanted


@pytest.mark.parametrize("name", WHOLE)
def test_whole_models_take_the_place_of_the_testbeds_backbone(name, tmp_path, monkeypatch):
    folder, config = WHOLE[name]
    words = ["--config", BASE, "--config", f"experiments/backbones/{name}.yaml"]
    words += ["--model.method.visual_rows_to_text", "none"]
    words += ["--model.method.visual_length", "0"] if name.startswith("qwen") else []
    monkeypatch.setenv("M2PT_MODELS", str(tmp_path))
    with pytest.raises(BadInputError, match=f"{folder} is not there"):
        parse_experiment(words)
    write_whole_model(tmp_path / folder, config())
    backbone = parse_experiment(words).model.backbone
    assert backbone.folder == tmp_path / folder
    assert backbone.dtype_name == "bfloat16"


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_take_the_place_of_the_testbeds_backbone(name, tmp_path, monkeypatch):
    tower, kind, language = PAIRS[name]
    words = ["--config", BASE, "--config", f"experiments/backbones/{name}.yaml"]
    monkeypatch.setenv("M2PT_MODELS", str(tmp_path))
    with pytest.raises(BadInputError, match=f"{tower} is not there"):
        parse_experiment(words)
    store_pair(tmp_path, kind)
    for stored, place in (("tower", tower), ("language", language)):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / stored).rename(tmp_path / place)
    embedded = EMBEDDED_FOLDER / name / "projector" if name == "smollm2_dinov2" else None
    words += ["--model.backbone.image_size", "16"] if embedded else []  # 112 pixels are 64 patches of its own tower
    backbone = parse_experiment(words).model.backbone
    assert (backbone.tower.folder, backbone.language_folder) == (tmp_path / tower, tmp_path / language)
    assert backbone.projector_path.parent == embedded or backbone.projector_path.parent.parent == tmp_path
    assert backbone.dtype_name == "bfloat16"


def test_a_pair_of_wheels_that_is_not_there_says_what_makes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("M2PT_MODELS", str(tmp_path))
    assert main(["params", "--config", BASE, "--config", "experiments/backbones/smollm2_dinov2.yaml"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert f"{tmp_path}/smollm2_dinov2/vision is not there" in said[0]
    assert f"m2pt models fetch smollm2_dinov2 --to {tmp_path}/smollm2_dinov2 makes it" in said[-1]


@pytest.mark.parametrize("path", [path for path in TESTBED if path.stem != "frozen"], ids=lambda path: path.stem)
def test_methods_train_exactly_their_tensors_save_and_reload(path, tmp_path):
    words = small_words(tmp_path, str(path), steps=2)
    experiment, run = fitted(words)
    model = experiment.model
    declared = [parameter for tensors in model.method.parts().values() for _, parameter in tensors]
    assert_same_set("trained", trained_parameters(model).values(), declared)
    assert_same_set("method", model.method.parameters(), declared)
    assert count(parse_experiment(words).model)["trained"] == sum(parameter.numel() for parameter in declared)
    again = experiment_of_run(run)
    check_experiment(again)
    load_run(run, again)
    assert hash_tensors(declared_tensors(again.model.method)) == hash_tensors(declared_tensors(model.method))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--model.method.visual_length", "0"], ["textual_prompts", "interaction"]),
        (["--model.method.textual_length", "0"], ["visual_prompts", "interaction"]),
        (["--model.method.interaction", "false"], ["visual_prompts", "textual_prompts"]),
    ],
    ids=["no visual prompts", "no textual prompts", "no interaction"],
)
def test_an_ablation_is_one_changed_argument(tmp_path, words, parts):
    experiment, _ = fitted([*small_words(tmp_path, steps=1), *words])
    assert list(experiment.model.method.parts()) == parts


def test_an_adapter_of_other_lengths_or_another_backbone_is_refused(tmp_path):
    words = small_words(tmp_path, steps=1)
    _, run = fitted(words)
    other = parse_experiment([*words, "--model.method.textual_length", "5"])
    with pytest.raises(BadInputError, match="textual_length is 10 in the adapter and 5"):
        load_run(run, other)
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    (run / "adapter" / "adapter_config.json").write_text(json.dumps({**config, "base_fingerprint": "0" * 64}))
    with pytest.raises(BadInputError, match="another backbone"):
        load_run(run, parse_experiment(words))


def test_a_damaged_adapter_is_refused(tmp_path):
    words = small_words(tmp_path, steps=1)
    _, run = fitted(words)
    path = run / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInputError, match=r"adapter_model\.safetensors"):
        load_run(run, parse_experiment(words))


def benchmark_words(folder: Path) -> list[str]:
    """Returns words for two small evaluation sets of invented questions."""
    from data_modules.mnist import MNIST
    from data_modules.vsr import VSR

    MNIST.write_fake(folder / "mnist")
    VSR.write_fake(folder / "vsr")
    sets = [
        {
            "class_path": f"data_modules.{name.lower()}.{name}",
            "init_args": {
                "root": str(folder / name.lower()),
                "template": "plain",
                "batch_size": 3,
                "max_new_tokens": 4,
            },
        }
        for name in ("MNIST", "VSR")
    ]
    return ["--benchmarks", json.dumps(sets)]


def test_reloaded_in_a_fresh_process_the_predictions_are_identical(tmp_path):
    experiment, run = fitted([*small_words(tmp_path, steps=3), *benchmark_words(tmp_path)])
    evaluate_tuned(experiment, run)
    before = {path.name: path.read_bytes() for path in (run / "predictions").iterdir()}
    subprocess.run([sys.executable, "-m", "lightning_m2pt.main", "evaluate", "--run", str(run), "--force"], check=True)
    assert {path.name: path.read_bytes() for path in (run / "predictions").iterdir()} == before
    assert set(before) == {"mnist.jsonl", "vsr.jsonl"}


def raw_answers(folder: Path, name: str) -> list[str]:
    """Returns what was answered to every question, in the set's order."""
    lines = (folder / "predictions" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line)["answer"] for line in lines[1:]]


def test_knocking_out_every_part_is_the_frozen_model(tmp_path):
    experiment, run = fitted([*small_words(tmp_path, steps=3), *benchmark_words(tmp_path)])
    parts = experiment.model.method.part_names()
    untouched, frozen = evaluate_frozen(experiment)
    assert evaluate(["--run", str(run), "--knock-out", *parts]) == 0
    (folder,) = (run / "evaluations").iterdir()
    for name, score in frozen.items():
        scored = json.loads((folder / "scores" / f"{name}.json").read_text())
        assert raw_answers(folder, name) == raw_answers(untouched, name)
        assert scored["parsed"] == score.parsed
        assert scored["toggles"]["knocked_out"] == ", ".join(sorted(parts))
        assert all(scored["toggles"][part] is False for part in parts)


def test_knocking_out_one_part_leaves_the_others(tmp_path):
    experiment, _ = fitted(small_words(tmp_path, steps=1))
    model = experiment.model
    model.method.attach(model.backbone, without={"visual_prompts"})
    assert model.backbone.attachment.visual_prompts is None
    assert model.backbone.attachment.textual_prompts is model.method.textual_prompts
    assert model.backbone.attachment.connector is model.method.interaction
    with pytest.raises(BadInputError, match="no part 'prompts'"):
        model.method.attach(model.backbone, without={"prompts"})


def test_same_seed_same_prompts_whatever_came_before(tmp_path):
    torch.manual_seed(99)
    words = small_words(tmp_path, BASE, steps=1)
    starts = []
    for disturbance in (1, 2):
        from lightning.pytorch import seed_everything

        seed_everything(0, verbose=False)
        torch.rand(disturbance)  # prompts have a generator of their own: this must not move them
        starts.append(hash_tensors(declared_tensors(checked(words).model.method)))
    assert starts[0] == starts[1]
