"""``m2pt transfer``: a prompt of one base on another one, by value; what cannot be carried is refused by its reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data_modules.cifar10 import CIFAR10
from experiments.commands.parsers.transfer import argument_parser
from experiments.commands.transfer import main
from experiments.configuration.cli import Experiment, parse_experiment
from experiments.prompt_transfer.evaluation import put_in
from experiments.prompt_transfer.feature_distance import distance_on, shown_pictures
from experiments.prompt_transfer.results import (
    RESULTS_FILE,
    SETTINGS_FILE,
    read_transfer,
    settle,
    transfer_table,
)
from experiments.prompt_transfer.rows import Row, rows_of
from experiments.prompt_transfer.source_prompt import placed_delta, random_delta, read_prompts
from experiments.prompt_transfer.target import delta_on_target, target_experiment
from experiments.runs.evaluation import AnsweringOptions, check_benchmarks, evaluate_tuned
from experiments.runs.prepare import check_experiment
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.main import main as run_verb
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.prompts.pixel_prompt import resized_delta
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_folder import save_adapter

METHOD = "lightning_m2pt.methods.pixel_prompting.PixelPrompting"
PATCH12 = "experiments/backbones/testbed_patch12.yaml"
BORDER = 30 / 224


def experiment_with(*words: str) -> Experiment:
    return parse_experiment(
        [
            "--config=experiments/frozen.yaml",
            f"--model.method={METHOD}",
            "--benchmarks=cifar10",
            "--benchmarks.limit=20",
            *words,
        ]
    )


Saving = Callable[..., Path]


@pytest.fixture(scope="module")
def loaded() -> Experiment:
    experiment = experiment_with()
    experiment.model.configure_model()
    return experiment


@pytest.fixture(scope="module")
def saved(loaded: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Saving:
    """Writes the adapter of a prompt drawn with a seed, on the first backbone, and returns its folder."""

    def save(seed: int, scale: float = 0.3, **arguments: object) -> Path:
        method = PixelPrompting(**arguments)
        backbone = loaded.model.backbone
        method.build(backbone, torch.Generator().manual_seed(0))
        prompt = method.pixel_prompt
        assert prompt is not None
        with torch.no_grad():
            prompt.delta.copy_(scale * torch.randn(prompt.delta.shape, generator=torch.Generator().manual_seed(seed)))
        method.built_shapes = {name: tuple(each.shape) for name, each in method.named_tensors().items()}
        folder = tmp_path_factory.mktemp("prompt")
        save_adapter(folder, method, AdapterBase("testbed", backbone.fingerprint()), "", template="vicuna_v1")
        return folder

    return save


def words(*prompts: Path, output: Path, to: str = "frozen", more: tuple[str, ...] = ()) -> list[str]:
    named = [word for prompt in prompts for word in ("--prompt", str(prompt))]
    return [
        *named,
        "--to",
        to,
        "--benchmarks=cifar10",
        "--benchmarks.limit=20",
        "--answer=likelihood_sum",
        f"--output_root={output}",
        *more,
    ]


def predicted(folder: Path, name: str) -> dict[str, str]:
    lines = (folder / name / "predictions" / "cifar10.jsonl").read_text().splitlines()
    return {row["id"]: row["answer"] for row in map(json.loads, lines[1:])}


def test_the_mean_of_prompts_is_resized_masked_and_taken_in_that_order(saved: Saving) -> None:
    prompts = read_prompts([saved(1), saved(2)])
    placed = placed_delta(prompts, 72, BORDER, "bilinear")
    assert placed.shape == (3, 72, 72)
    # Bilinear without antialiasing from 48 to 72: output 30.5/1.5 - 0.5 lies between two input pixels.
    mean = (prompts[0].delta + prompts[1].delta) / 2
    row, column = 2, 40
    y, x = (row + 0.5) / 1.5 - 0.5, (column + 0.5) / 1.5 - 0.5
    y0, x0 = int(y), int(x)
    top = mean[:, y0, x0] * (1 - (x - x0)) + mean[:, y0, x0 + 1] * (x - x0)
    bottom = mean[:, y0 + 1, x0] * (1 - (x - x0)) + mean[:, y0 + 1, x0 + 1] * (x - x0)
    expected = top * (1 - (y - y0)) + bottom * (y - y0)
    torch.testing.assert_close(placed[:, row, column], expected, rtol=1e-5, atol=1e-6)
    assert not placed[:, 10:62, 10:62].any()
    assert placed[:, 9, :].all()
    assert placed[:, :, 62].all()
    nearest = placed_delta(prompts[:1], 72, BORDER, "nearest")
    assert torch.equal(nearest[:, 3, 70], prompts[0].delta[:, 2, 46])


def test_prompts_may_stand_behind_one_flag_as_a_shell_names_them() -> None:
    own = argument_parser().parse_args(["--prompt", "a/1", "a/2", "--to", "frozen", "--prompt", "b"])
    assert own.prompt == [Path("a/1"), Path("a/2"), Path("b")]


def test_a_random_prompt_has_the_norm_and_the_border_of_the_other() -> None:
    like = torch.zeros(3, 48, 48)
    like[:, 0, 0] = torch.tensor([3.0, 4.0, 0.0])
    drawn = random_delta(like, BORDER, 7)
    assert float(drawn.double().norm()) == pytest.approx(5.0, rel=1e-6)
    assert not drawn[:, 6:42, 6:42].any()
    assert torch.equal(drawn, random_delta(like, BORDER, 7))
    assert not torch.equal(drawn, random_delta(like, BORDER, 8))


def test_rows_with_the_same_pictures_are_asked_once() -> None:
    delta = torch.ones(3, 48, 48)
    alike = {row.name: row.same_as for row in rows_of(delta, "overlay", "none", BORDER, None)}
    assert alike == {"composition": "untouched", "prompt": "", "clipped": "", "eight_bits": ""}
    shrunk = rows_of(delta, "shrink", "unit", BORDER, 3)
    assert [row.same_as for row in shrunk] == ["", "", "prompt", "", ""]
    assert [row.clip for row in shrunk] == ["unit", "unit", "unit", "eight_bits", "unit"]
    assert not shrunk[0].delta.any()


def test_a_transfer_answers_every_row_as_the_method_itself_does(
    saved: Saving, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = saved(3, 2.0)
    assert main(words(prompt, output=tmp_path, more=("--config", PATCH12, "--random=5"))) == 0
    (folder,) = (tmp_path / "transfers").iterdir()
    said = capsys.readouterr().out
    assert "composition has the very pictures of untouched" in said
    records = {record["row"]: record for record in read_transfer(folder)["rows"]}
    assert list(records) == ["untouched", "composition", "prompt", "clipped", "eight_bits", "random"]
    assert records["composition"]["gain"] == 0.0
    assert records["composition"]["predictions"] == records["untouched"]["predictions"]
    for name in ("prompt", "clipped", "eight_bits", "random"):
        assert records[name]["gain"] == pytest.approx(records[name]["score"] - records["untouched"]["score"])
        assert records[name]["low"] <= records[name]["gain"] <= records[name]["high"]
    assert records["prompt"]["feature_distance"] > 0.1
    assert records["clipped"]["feature_distance"] is None

    # The same by the method alone, on the target, with its own numbers put in by hand.
    target = experiment_with(f"--config={PATCH12}", f"--output_root={tmp_path}")
    check_experiment(target)
    check_benchmarks(target, method="likelihood_sum")
    target.model.configure_model()
    own = target.model.method.pixel_prompt
    delta = read_prompts([prompt])[0].delta
    with torch.no_grad():
        own.delta.copy_(resized_delta(delta, 72))
    for name, clip in (("prompt", "none"), ("clipped", "unit")):
        own.clip = clip
        evaluate_tuned(target, tmp_path / "own" / clip, options=AnsweringOptions("likelihood_sum"))
        assert predicted(tmp_path / "own", clip) == predicted(folder, name)
    assert predicted(folder, "prompt") != predicted(folder, "random-5")
    assert predicted(folder, "prompt") != predicted(folder, "clipped")

    # What is there is not answered again, and the same numbers come out.
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jsonl")}
    assert main(words(prompt, output=tmp_path, more=("--config", PATCH12, "--random=5"))) == 0
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*.jsonl")}
    assert records == {record["row"]: record for record in read_transfer(folder)["rows"]}
    (folder / "prompt" / "predictions" / "cifar10.jsonl").unlink()
    assert main(words(prompt, output=tmp_path, more=("--config", PATCH12, "--random=5"))) == 0
    assert records == {record["row"]: record for record in read_transfer(folder)["rows"]}

    # Another random prompt, or none, is asked for in the same folder: what else is there is not answered again.
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jsonl")}
    assert main(words(prompt, output=tmp_path, more=("--config", PATCH12, "--random=6"))) == 0
    others = {record["row"]: record for record in read_transfer(folder)["rows"]}
    assert predicted(folder, "random-5") != predicted(folder, "random-6")
    assert others["random"]["feature_distance"] != records["random"]["feature_distance"]
    assert {**others, "random": records["random"]} == records
    assert main(words(prompt, output=tmp_path, more=("--config", PATCH12))) == 0
    assert [record["row"] for record in read_transfer(folder)["rows"]] == list(records)[:-1]
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert list((tmp_path / "transfers").iterdir()) == [folder]


def test_on_its_own_base_a_prompt_is_what_it_was_trained_as_and_that_is_said(
    saved: Saving, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = saved(4, 2.0, compose="shrink", fill=(0.5, 0.5, 0.5))
    assert main(words(prompt, output=tmp_path)) == 0
    assert "trained on this very base, so this is no transfer" in capsys.readouterr().out
    (folder,) = (tmp_path / "transfers").iterdir()
    content = read_transfer(folder)
    assert content["target"]["is_source"]
    assert content["prompts"][0]["side"] == 48
    by_name = {record["row"]: record for record in content["rows"]}
    assert by_name["composition"]["same_as"] == ""
    assert predicted(folder, "composition") != predicted(folder, "prompt")


def test_a_folder_is_of_one_base_and_one_composition(tmp_path: Path) -> None:
    overlay, shrink = {"compose": "overlay", "fill": [0.0, 0.0, 0.0]}, {"compose": "shrink", "fill": [0.0, 0.0, 0.0]}
    settle(tmp_path / "a", overlay, ("today", "former"), force=False)
    settle(tmp_path / "a", overlay, ("tomorrow", "today"), force=False)
    with pytest.raises(BadInputError, match="answers of another base are in this folder"):
        settle(tmp_path / "a", overlay, ("other", "other's former"), force=False)
    with pytest.raises(BadInputError, match="composed otherwise are in this folder"):
        settle(tmp_path / "a", shrink, ("today", "former"), force=False)
    settle(tmp_path / "a", shrink, ("other", "other's former"), force=True)
    with pytest.raises(BadInputError, match="composed otherwise"):
        settle(tmp_path / "a", overlay, ("other", "other's former"), force=False)
    (tmp_path / "a" / SETTINGS_FILE).write_text('{"arguments": 1}')
    with pytest.raises(BadInputError, match="damaged"):
        settle(tmp_path / "a", shrink, ("other", "other's former"), force=False)
    # A transfer of before the settings were written says both in its results.
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / RESULTS_FILE).write_text(json.dumps({"arguments": overlay, "target": {"fingerprint": "one"}}))
    with pytest.raises(BadInputError, match="another base"):
        settle(tmp_path / "b", overlay, ("two", "former"), force=False)
    settle(tmp_path / "b", overlay, ("one", "former"), force=False)
    assert (tmp_path / "b" / SETTINGS_FILE).is_file()
    # One of before that was stopped says nothing.
    (tmp_path / "c" / "prompt" / "predictions").mkdir(parents=True)
    with pytest.raises(BadInputError, match="nothing says of which base"):
        settle(tmp_path / "c", overlay, ("one", "former"), force=False)
    settle(tmp_path / "c", overlay, ("one", "former"), force=True)
    settle(tmp_path / "c", overlay, ("one", "former"), force=False)


def test_a_p_value_is_never_nothing() -> None:
    record = {"set": "pope", "row": "prompt", "score": 50.0, "gain": 9.0, "low": 1.0, "high": 17.0, "same_as": ""}
    for p_value, shown in ((1e-9, "< 0.0001"), (0.0004, "0.0004"), (0.25, "0.2500"), (None, "")):
        table = transfer_table("", [{**record, "p_value": p_value, "feature_distance": None}], [])
        assert table.rows[0][-1] == shown


def test_answers_of_another_composition_are_not_taken_for_those_of_this_one(saved: Saving, tmp_path: Path) -> None:
    there = ("--output", str(tmp_path / "one"))
    assert main(words(saved(6, 2.0), output=tmp_path, more=there)) == 0
    with pytest.raises(BadInputError, match="composed otherwise"):
        main(words(saved(6, 2.0, compose="shrink"), output=tmp_path, more=there))


def test_the_feature_distance_is_the_mean_over_pictures_of_relative_distances(saved: Saving) -> None:
    prompts = read_prompts([saved(6)])
    target = target_experiment(prompts, ["--config=experiments/frozen.yaml", "--benchmarks.limit=7"])
    check_experiment(target)
    (benchmark,) = [each for each in target.benchmarks if isinstance(each, CIFAR10)]
    benchmark.batch_size = 3
    backbone = target.model.backbone
    prompt = put_in(target, Row("prompt", delta_on_target(prompts, target, "bilinear"), "none"))
    pixels = torch.cat([benchmark.processor.pictures(sample.images)[0].pixels for sample in shown_pictures(benchmark)])
    assert len(pixels) == 7
    with torch.no_grad():
        prompted, clean = (
            backbone.connect(backbone.visual_rows(each).rows).double() for each in (prompt(pixels), pixels)
        )
    distances = (prompted - clean).norm(dim=-1).mean(dim=1) / clean.norm(dim=-1).mean(dim=1)
    assert distance_on(target, benchmark) == pytest.approx(float(distances.mean()), rel=1e-4)


def test_pictures_with_several_questions_are_measured_once(saved: Saving) -> None:
    target = target_experiment(read_prompts([saved(6)]), ["--config=experiments/frozen.yaml"])
    target.connect()
    (pope,) = [each for each in target.benchmarks if each.name == "pope"]
    shown = shown_pictures(pope)
    assert len(shown) == len({question.image_id for question in pope.questions()}) == 100
    (cifar10,) = [each for each in target.benchmarks if each.name == "cifar10"]
    assert len(shown_pictures(cifar10)) == 200


def refused(arguments: list[str]) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        main(arguments)
    assert caught.value.expected
    return caught.value


def test_what_is_no_prompt_is_refused(saved: Saving, tmp_path: Path) -> None:
    prompt = saved(8)
    other = shutil.copytree(prompt, tmp_path / "other")
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "M2PT"}))
    assert "the method m2pt has no pixel prompt" in refused(words(other, output=tmp_path)).what
    assert "no adapter here" in refused(words(tmp_path, output=tmp_path)).what
    damaged = shutil.copytree(prompt, tmp_path / "damaged")
    (damaged / "adapter_model.safetensors").write_bytes((prompt / "adapter_model.safetensors").read_bytes()[:-8])
    refused(words(damaged, output=tmp_path))
    content = bytearray((prompt / "adapter_model.safetensors").read_bytes())
    content[-2] ^= 1  # of a finite number another one
    (damaged / "adapter_model.safetensors").write_bytes(content)
    refused(words(damaged, output=tmp_path))


def test_prompts_that_compose_otherwise_or_twice_have_no_mean(saved: Saving, tmp_path: Path) -> None:
    prompt = saved(9)
    error = refused(words(prompt, saved(10, compose="shrink"), output=tmp_path))
    assert "compose is shrink here and overlay in" in error.what
    assert "there twice" in refused(words(prompt, prompt, output=tmp_path)).what


def test_units_of_another_normalisation_are_refused(saved: Saving, tmp_path: Path) -> None:
    prompt = saved(11, space="normalised")
    error = refused(words(prompt, output=tmp_path, more=("--config", PATCH12)))
    assert "an adapter alone does not say which they are" in error.what
    run = tmp_path / "run"
    shutil.copytree(prompt, run / "adapter")
    source = experiment_with("--model.method.space=normalised")
    (run / "config.yaml").write_text(json.dumps(source.config))
    experiment = target_experiment(read_prompts([run]), ["--config=experiments/frozen.yaml", "--config", PATCH12])
    assert experiment.model.method.space == "normalised"  # the same means and deviations
    vision = json.loads(Path("lightning_m2pt/embedded/testbed_patch12/vision/open_clip_config.json").read_text())
    vision["preprocess_cfg"] = {**vision.get("preprocess_cfg", {}), "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(vision))
    setting = f"--model.backbone.vision_config={tmp_path / 'open_clip_config.json'}"
    error = refused(words(run, output=tmp_path, more=("--config", PATCH12, setting)))
    assert "normalises pictures otherwise" in error.what


def test_the_prompt_says_how_pictures_are_composed(saved: Saving, tmp_path: Path) -> None:
    """A word that changed it would change answers in a folder whose name says nothing of it."""
    prompt = saved(12)
    error = refused(words(prompt, output=tmp_path, more=("--model.method.clip=unit",)))
    assert "clip is unit, and the prompt says" in error.what
    assert error.expected == "none, as it was trained"
    error = refused(words(prompt, output=tmp_path, more=("--model.method=lightning_m2pt.methods.frozen.Frozen",)))
    assert "unknown key" in error.what


def test_an_evaluation_keeps_the_clipping_and_says_who_changes_it(
    saved: Saving, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter = ["--adapter", str(saved(12)), "--config", "experiments/frozen.yaml", "--output", str(tmp_path / "made")]
    assert run_verb(["evaluate", *adapter, "--benchmarks=cifar10", "--model.method.clip=eight_bits"]) == 2
    said = capfd.readouterr().err.splitlines()
    assert "clip is none in the adapter and eight_bits in the configuration" in said[0]
    assert said[2].startswith("  hint: m2pt transfer --prompt")
    assert not (tmp_path / "made").exists()


def test_a_target_without_sets_or_with_wrong_words_is_refused(saved: Saving, tmp_path: Path) -> None:
    prompt = saved(12)
    refused(["--prompt", str(prompt), "--to", "frozen", "--benchmarks", "nothing"])
    refused(words(prompt, output=tmp_path, to="frozn"))
    refused(words(prompt, output=tmp_path, more=("--model.nothing=1",)))
