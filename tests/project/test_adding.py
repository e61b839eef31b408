"""The worked examples of ``docs/adding`` are run as they stand there: contract, two steps of tuning, an evaluation."""

import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from experiments.configuration.cli import parse_experiment
from experiments.runs.evaluation import AnsweringOptions, check_benchmarks, evaluate_frozen
from experiments.runs.loading import experiment_of_run, load_run
from experiments.runs.tuning import fit
from lightning_m2pt.main import main
from lightning_m2pt.metrics.predictions import read_predictions
from tests.support.small_experiment import small_words

PAGES = Path(__file__).parents[2] / "docs/adding"
BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def written(page: str, folder: Path) -> None:
    """Writes the files of a page."""
    blocks = BLOCK.findall((PAGES / page).read_text(encoding="utf-8"))
    assert len(blocks) == 3, "a page has a class, its test and its YAML"
    lines = len(blocks[0][1].splitlines())
    assert f" {lines} lines" in (PAGES / page).read_text(encoding="utf-8")
    for name, content in blocks:
        (folder / name).write_text(content, encoding="utf-8")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """Returns the folder with a page's files, which can be imported."""
    folder = tmp_path / "mine"
    folder.mkdir()
    written(request.param, folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def contract_of(name: str) -> ModuleType:
    return importlib.import_module(f"test_{name}")


@pytest.mark.parametrize("page", ["method.md"], indirect=True)
def test_the_method(page: Path, tmp_path: Path) -> None:
    contract_of("output_gains").test_it_keeps_the_contract()
    opened = ["--config", str(page / "output_gains.yaml"), "--allow-import", "output_gains"]
    run = fit(parse_experiment([*small_words(tmp_path, steps=2), *opened]), folder=tmp_path / "run")
    loaded = experiment_of_run(run, ["--allow-import", "output_gains"])
    load_run(run, loaded)
    gains = loaded.model.method.named_tensors()["gains.0_mlp"]
    assert 0 < float((gains - 1).abs().max()) < 0.05
    card = (run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "| gains | 1,024 | nothing |" in card


@pytest.mark.parametrize("page", ["set.md"], indirect=True)
def test_the_set(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract_of("named_pictures").test_it_keeps_the_contract()
    module = importlib.import_module("named_pictures")
    module.NamedPictures.write_fake(page / "data" / "named_pictures")
    yaml = str(page / "named_pictures.yaml")
    words = ["--config", "experiments/frozen.yaml", "--config", yaml, "--allow-import", "named_pictures"]
    experiment = parse_experiment([*words, "--output_root", str(tmp_path / "outputs")])
    assert [benchmark.name for benchmark in experiment.benchmarks] == ["named_pictures"]
    options = AnsweringOptions(method="likelihood_sum")
    for benchmark in experiment.benchmarks:
        benchmark.connect(experiment.model.backbone.processor())
    check_benchmarks(experiment, method=options.method)
    folder, scores = evaluate_frozen(experiment, options)
    scored = scores["named_pictures"]
    assert (scored.n, scored.rule, scored.unparsed, scored.chance) == (6, "closed_set", 0, 50)
    header = read_predictions(folder / "predictions" / "named_pictures.jsonl").header
    assert header["shared_with_tasks"] == module.NamedPictures.shared_with_tasks
    assert main(["score", str(folder / "predictions" / "named_pictures.jsonl"), "--rule", "all"]) == 0
    assert main(["report", str(folder)]) == 0
    assert "named_pictures" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["backbone.md"], indirect=True)
def test_the_backbone(page: Path, tmp_path: Path) -> None:
    contract = contract_of("siglip_llama")
    contract.test_it_keeps_the_contract(tmp_path / "contract")
    model = page / "models" / "siglip_llama"
    contract.write_small(model)
    opened = ["--config", str(page / "siglip_llama.yaml"), "--allow-import", "siglip_llama"]
    words = [*small_words(tmp_path, "experiments/ptum_base.yaml", steps=2), *opened]
    run = fit(parse_experiment(words), folder=tmp_path / "run")
    adapter = json.loads((run / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["base_fingerprint"].startswith("siglip_llama:")
    assert adapter["base"] == {"kind": "files", "class": "SiglipLlama", "arguments": {}}
    assert adapter["base_model_name_or_path"] == f"SiglipLlama {adapter['base_fingerprint'][:16]}"
