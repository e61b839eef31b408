"""What a transfer knows before anything is answered: rows, pictures that are measured, prompts, and what is said."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiments.prompt_transfer import feature_distance, source_prompt
from experiments.prompt_transfer.results import RESULTS_FILE, known_distances, read_transfer
from experiments.prompt_transfer.rows import rows_of
from experiments.prompt_transfer.source_prompt import SourcePrompt, read_prompts, refuse_other_units, sentences_about
from experiments.prompt_transfer.target import target_experiment
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.pixel_prompting import PixelPrompting
from lightning_m2pt.storage.run_record import MADE_WITH

BORDER = 30 / 224


def prompt_of(folder: Path, number: float = 0.0, **changes: Any) -> SourcePrompt:
    made = SourcePrompt(
        folder, folder, torch.full((3, 48, 48), number), PixelPrompting().adapter_config(), (), "a", "one", "", False
    )
    return replace(made, **changes)


def test_pictures_are_spread_evenly_over_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """450 pictures with two questions each: every third, by its first question, in the order of the set."""
    monkeypatch.setattr(feature_distance, "as_sample", lambda question: question)
    asked = [SimpleNamespace(image_id=number // 2, id=number) for number in range(900)]
    shown = feature_distance.shown_pictures(SimpleNamespace(questions=lambda: asked))  # type: ignore[arg-type]
    assert [each.id for each in shown] == list(range(0, 900, 6))


def test_zeros_are_the_untouched_picture_where_nothing_is_clipped() -> None:
    delta = torch.ones(3, 48, 48)
    alike = {
        (compose, clip): {row.name: row.same_as for row in rows_of(delta, compose, clip, BORDER, None) if row.same_as}  # type: ignore[arg-type]
        for compose in ("overlay", "shrink")
        for clip in ("none", "unit", "eight_bits")
    }
    same = {"none": {}, "unit": {"clipped": "prompt"}, "eight_bits": {"eight_bits": "prompt"}}
    assert alike == {
        **{(compose, clip): same[clip] for compose in ("overlay", "shrink") for clip in same},
        ("overlay", "none"): {"composition": "untouched"},
    }


def test_distances_are_measured_once_and_again_by_force(tmp_path: Path) -> None:
    row = {"set": "pope", "score": 1.0, "predictions": "a", "same_as": ""}
    rows = [
        {**row, "row": "prompt", "feature_distance": 0.5},
        {**row, "row": "prompt", "set": "mnist", "feature_distance": 0.25},
        {**row, "row": "clipped", "feature_distance": 0.5, "same_as": "prompt"},
        {**row, "row": "eight_bits", "feature_distance": None},
        {**row, "row": "random", "feature_distance": 0.75},
    ]
    assert known_distances(tmp_path, 3, force=False) == {}
    content = {"format": 1, "random_seed": 3, "rows": rows}
    (tmp_path / RESULTS_FILE).write_text(json.dumps(content))
    prompt = {"prompt": {"pope": 0.5, "mnist": 0.25}}
    assert known_distances(tmp_path, 3, force=False) == {**prompt, "random": {"pope": 0.75}}
    assert known_distances(tmp_path, 4, force=False) == prompt
    assert known_distances(tmp_path, 3, force=True) == {}
    (tmp_path / RESULTS_FILE).write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(BadInputError, match="format 2"):
        read_transfer(tmp_path)


def test_what_should_be_known_of_prompts_is_said(tmp_path: Path) -> None:
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    whole = prompt_of(tmp_path / "run", adapter=tmp_path / "run" / "adapter", template="vicuna_v1", others=("lora",))

    def said(*prompts: SourcePrompt, base: str = "two", template: str = "vicuna_v1") -> list[str]:
        return [each.partition(": ")[2] or each for each in sentences_about(prompts, (base, "former"), (template,))]

    together = "trained together with lora, which stays behind"
    assert said(whole) == [together]
    assert said(whole, base="one") == ["trained on this very base, so this is no transfer", together]
    assert said(replace(whole, base_fingerprint="former"))[0] == "trained on this very base, so this is no transfer"
    asked = "trained in the template vicuna_v1, asked in plain here"
    assert said(whole, template="plain") == [together, asked]
    assert said(prompt_of(tmp_path), template="plain") == []
    (tmp_path / "run" / "run.json").write_text(json.dumps({MADE_WITH: []}))
    assert said(whole)[1:] == ["its training was stopped before its last step"]
    assert said(prompt_of(tmp_path), prompt_of(tmp_path)) == [
        "the mean of 2 prompts is used, each resized to the target's picture first"
    ]


def test_units_of_deviations_stay_with_their_base_by_either_of_its_names(tmp_path: Path) -> None:
    target: Any = SimpleNamespace(fingerprint=lambda: "today", former_fingerprint=lambda: "former")
    arguments = PixelPrompting(space="normalised").adapter_config()
    for name in ("today", "former"):
        refuse_other_units(prompt_of(tmp_path, arguments=arguments, base_fingerprint=name), target)
    refuse_other_units(prompt_of(tmp_path), target)
    with pytest.raises(BadInputError, match="an adapter alone does not say which they are"):
        refuse_other_units(prompt_of(tmp_path, arguments=arguments), target)


def test_one_prompt_among_several_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = {Path(name): prompt_of(Path(name), number) for name, number in (("a", 1.0), ("b", 2.0), ("c", 1.0))}
    monkeypatch.setattr(source_prompt, "read_prompt", prompts.__getitem__)
    assert read_prompts([Path("a"), Path("b")]) == [prompts[Path("a")], prompts[Path("b")]]
    with pytest.raises(BadInputError, match="this prompt is there twice") as refused:
        read_prompts([Path("a"), Path("b"), Path("c")])
    assert refused.value.where.endswith("--prompt c")


def test_what_a_target_s_file_trains_with_plays_no_part(tmp_path: Path) -> None:
    experiment = target_experiment([prompt_of(tmp_path)], ["--config=experiments/tvp_base.yaml"])
    assert not list(experiment.model.regularisers)
    assert experiment.model.gradient_norm is None
