"""The backbone's recipe: stages resume, finished stages are not repeated, and the same settings give the same bits."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.backbone_recipe import plan
from experiments.backbone_recipe.conversations import ConversationTokenizer, pad_texts
from experiments.backbone_recipe.gates import whole_answers_right
from experiments.backbone_recipe.gradient_threads import GradientThreads
from experiments.backbone_recipe.joint_stage import build_backbone
from experiments.backbone_recipe.language_stage import answer_loss
from experiments.backbone_recipe.optimisation import orthogonalise, rate_share
from experiments.backbone_recipe.settings import RECIPES, OptimizerSettings, RecipeSettings
from experiments.backbone_recipe.stage_files import StageRecord
from experiments.backbone_recipe.tokenizer import build_tokenizer
from experiments.backbone_recipe.training_loop import StageProgress
from experiments.commands.backbone import OUTPUT_FOLDER, main
from experiments.testbed.asking import AskedQuestion
from lightning_m2pt.errors import BadInputError
from tests.backbones.test_rebuilt_backbone import SHIPPED

FULL = RecipeSettings()
TINY = replace(
    FULL,
    log_every=1,
    checkpoint_every=2,
    vision=replace(FULL.vision, steps=4, batch=4, pictures=20),
    language=replace(FULL.language, steps=4, batch=4),
    raster_language=replace(FULL.raster_language, steps=2, batch=4),
    dense=replace(FULL.dense, steps=2, batch=4, pictures=20),
    joint=replace(FULL.joint, steps=4, images=4, documents=4, pictures=20),
)


def run_all(work: Path, settings: RecipeSettings = TINY, stop: tuple[str, int] | None = None) -> list[StageProgress]:
    """Runs all stages in this process; ``stop`` interrupts a stage when it reports that step."""
    reports: list[StageProgress] = []

    def report(progress: StageProgress) -> None:
        reports.append(progress)
        if stop == (progress.stage, progress.step):
            raise KeyboardInterrupt

    for stage in plan.INPUTS:
        plan.run_named_stage(stage, settings, work, report)
    return reports


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("uninterrupted")
    run_all(work)
    return work


def weights_hashes(work: Path) -> dict[str, str]:
    return {stage: json.loads((work / f"{stage}.json").read_text())["file_sha256"] for stage in plan.INPUTS}


@pytest.mark.parametrize("stage", list(plan.INPUTS))
def test_an_interrupted_stage_goes_on_where_it_stopped(stage: str, uninterrupted: Path, tmp_path: Path) -> None:
    last = getattr(TINY, stage).steps
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path, stop=(stage, max(last - 1, 2)))
    again = run_all(tmp_path)
    steps = [progress.step for progress in again if progress.stage == stage]
    assert steps == ([3, 4] if last == 4 else [1, 2])
    assert weights_hashes(tmp_path) == weights_hashes(uninterrupted)


def test_a_finished_stage_is_not_repeated(uninterrupted: Path) -> None:
    assert run_all(uninterrupted) == []


def test_a_changed_setting_repeats_its_stage_and_what_follows(uninterrupted: Path, tmp_path: Path) -> None:
    for path in uninterrupted.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    changed = replace(TINY, raster_language=replace(TINY.raster_language, batch=2))
    assert {progress.stage for progress in run_all(tmp_path, changed)} == {"raster_language", "dense", "joint"}


def test_harmed_weights_are_made_again(uninterrupted: Path, tmp_path: Path) -> None:
    for path in uninterrupted.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "vision.safetensors").write_bytes(b"harmed")
    assert plan.stage_files("vision", TINY, tmp_path).finished() is None


def test_the_last_vision_block_keeps_its_initial_values(uninterrupted: Path) -> None:
    trained = plan.stage_files("joint", TINY, uninterrupted).weights()
    initial = build_backbone(TINY, build_tokenizer(512)).vision.state_dict()
    unused = [name for name in initial if name.startswith(("transformer.resblocks.4.", "ln_post.", "proj"))]
    assert all(torch.equal(trained[f"vision.{name}"], initial[name]) for name in unused)
    assert not torch.equal(trained["vision.conv1.weight"], initial["conv1.weight"])


def test_orthogonalise_brings_singular_values_near_one() -> None:
    matrices = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(0))
    for result in (orthogonalise(matrices), orthogonalise(matrices.mT)):
        values = torch.linalg.svdvals(result)
        assert values.min() > 0.5
        assert values.max() < 1.5


def test_the_rate_rises_stays_and_falls() -> None:
    settings = OptimizerSettings(warm_up_steps=10)
    assert rate_share(0, 100, settings) == pytest.approx(0.1)
    assert rate_share(9, 100, settings) == rate_share(50, 100, settings) == 1
    assert rate_share(75, 100, settings) == pytest.approx(0.5)
    assert rate_share(99, 100, settings) == pytest.approx(settings.final_rate_share)


def test_threads_add_up_the_same_gradients_as_one_loss() -> None:
    weight = torch.nn.Parameter(torch.randn(3, generator=torch.Generator().manual_seed(0)))
    losses = GradientThreads().gradients([lambda: (weight**2).sum(), lambda: weight.sum()], [weight])
    assert weight.grad is not None
    assert torch.allclose(weight.grad, 2 * weight + 1)
    assert sum(losses) == pytest.approx(float((weight.detach() ** 2).sum() + weight.detach().sum()))


def test_the_loss_weighs_answers_and_leaves_padding_out() -> None:
    tokenizer = build_tokenizer(512)
    conversations = ConversationTokenizer(tokenizer)
    short = AskedQuestion("count", "How many objects are there?", "3")
    long = AskedQuestion("describe", "Describe the image.", "small red ring top left, large blue bar top right")
    texts = pad_texts([conversations.tokenize([short]), conversations.tokenize([long])], tokenizer.pad_token_id)
    logits = torch.randn(*texts.token_ids.shape, len(tokenizer), generator=torch.Generator().manual_seed(0))
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), texts.token_ids[:, 1:].flatten(), reduction="none"
    ).view(2, -1)
    expected = losses[texts.is_answer[:, 1:]].mean()
    assert torch.allclose(answer_loss(logits, texts, 0.0), expected)
    assert tokenizer.decode(texts.token_ids[0][texts.is_answer[0]]) == "3 </s>"


def test_a_whole_answer_is_right_exactly_when_greedy_decoding_gives_it() -> None:
    tokenizer = build_tokenizer(512)
    backbone = build_backbone(FULL, tokenizer)
    conversations = ConversationTokenizer(tokenizer)
    question = AskedQuestion("color", "What color is the ring?", "")
    rows = torch.zeros(1, 36, FULL.architecture.language_width)
    with torch.no_grad():
        prompt = torch.tensor([conversations.tokenize([question], with_answer=False).token_ids])
        first = int(backbone.logits(rows, prompt)[0, -1].argmax())
    given = tokenizer.decode([first])
    other = "red" if given != "red" else "blue"
    right = whole_answers_right(backbone, conversations, rows, [AskedQuestion("color", question.question, other)])
    assert right == [False]


def test_wrong_arguments_are_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError):
        main(["--work", str(tmp_path / "file")])
    with pytest.raises(BadInputError):
        main(["--work", str(tmp_path), "--seed", "-1"])


@pytest.mark.slow
@pytest.mark.parametrize("backbone", RECIPES)
def test_the_shortened_recipe_does_what_is_recorded_and_the_same_twice(backbone: str, tmp_path: Path) -> None:
    record = OUTPUT_FOLDER / backbone / "training.json"
    recorded = json.loads(record.read_text(encoding="utf-8"))["shortened"] if backbone in SHIPPED else {}
    hashes = []
    for name in ("first", "second"):
        assert main(["--name", backbone, "--shortened", "--work", str(tmp_path / name)]) == 0
        work = tmp_path / name / backbone / "shortened"
        records = {stage: StageRecord(**json.loads((work / f"{stage}.json").read_text())) for stage in plan.INPUTS}
        hashes.append({stage: record.file_sha256 for stage, record in records.items()})
        for stage, expected_losses in recorded.items():
            for losses, expected in zip(records[stage].losses, expected_losses, strict=True):
                assert losses == pytest.approx(expected, rel=0.05)
    assert hashes[0] == hashes[1]
