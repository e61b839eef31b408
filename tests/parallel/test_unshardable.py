"""What a shared-out base cannot have is refused by its name in three lines, before weights load."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from experiments.commands import check
from experiments.configuration.cli import parse_experiment
from experiments.runs.tuning import check_tuning_settings
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.parallel.units import refuse_unless_shardable, refuse_untried_under_zero
from lightning_m2pt.testing.random_backbone import random_backbone
from lightning_m2pt.tuning.module import TuningModule
from tests.support.small_experiment import small_words
from tests.support.strategies.cpu_zero import CpuZeroStrategy

FSDP = ("--config", "experiments/strategies/fsdp.yaml")
REFUSED = {
    "full": ("experiments/full.yaml", [], "model.method: full trains the whole base"),
    "prefix path": (
        "experiments/m2pt_base.yaml",
        ["--model.method.path", "prefix"],
        "model.method.init_args.path: prompts as keys and values",
    ),
    "compiled": (
        "experiments/m2pt_base.yaml",
        ["--model.backbone.compile_backend", "aot_eager"],
        "model.backbone.compile_backend: compiled layers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_check_and_fit_refuse_it_before_anything_is_read(tmp_path: Path, case: str) -> None:
    config, words, sentence = REFUSED[case]
    given = [*small_words(tmp_path, config), *words, *FSDP]
    with pytest.raises(BadInputError, match=sentence) as refused:
        check_tuning_settings(parse_experiment(given))
    assert len(str(refused.value).splitlines()) == 3
    assert "strategies/ddp.yaml" in str(refused.value)
    with pytest.raises(BadInputError, match=sentence):
        check.main(given)


def test_full_is_refused_under_stage_2_of_deepspeed(tmp_path: Path) -> None:
    given = [*small_words(tmp_path, REFUSED["full"][0]), "--config", "experiments/strategies/deepspeed_stage_2.yaml"]
    with pytest.raises(BadInputError, match="full trains the whole base, which is not tried with DeepSpeed") as refused:
        check_tuning_settings(parse_experiment(given))
    assert len(str(refused.value).splitlines()) == 3


def test_one_of_several_methods_is_enough(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    refuse_unless_shardable(backbone, Combined([M2PT(2, 0, interaction=False), Lora(2, interaction=False)]))
    with pytest.raises(BadInputError, match="prompts as keys and values"):
        refuse_unless_shardable(
            backbone, Combined([M2PT(2, 0, interaction=False, path="prefix"), Lora(2, interaction=False)])
        )
    with pytest.raises(BadInputError, match="trains the whole base"):
        refuse_unless_shardable(backbone, Full())


def test_packed_weights_are_refused(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    backbone.quantization = "int8"
    with pytest.raises(BadInputError, match=r"packed weights \(int8\) are not shared out"):
        refuse_unless_shardable(backbone, M2PT(2, 2))
    with pytest.raises(BadInputError, match=r"packed weights \(int8\) are not tried with DeepSpeed"):
        refuse_untried_under_zero(backbone, M2PT(2, 2))


def test_texts_that_rows_start_from_are_refused_under_deepspeed(tmp_path: Path) -> None:
    backbone, text = random_backbone(tmp_path), "a text"
    for method in (PrefixTuning(2, init_text=text), Combined([Lora(2, interaction=False), words_of(text)])):
        refuse_unless_shardable(backbone, method)
        with pytest.raises(BadInputError, match="not tried") as refused:
            refuse_untried_under_zero(backbone, method)
        assert refused.value.where == "model.method.init_text"
    refuse_untried_under_zero(backbone, PrefixTuning(2))


def words_of(text: str) -> M2PT:
    return M2PT(0, 2, visual_rows_to_text="none", init="words", init_text=text)


def test_a_trainer_of_ones_own_is_refused_them_too(tmp_path: Path) -> None:
    module = TuningModule(random_backbone(tmp_path), Full())
    module.trainer = Trainer(accelerator="cpu", strategy=CpuZeroStrategy(2), logger=False, enable_checkpointing=False)
    with pytest.raises(BadInputError, match="full trains the whole base, which is not tried with DeepSpeed"):
        module.setup("fit")


def test_cached_features_are_refused(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path)
    backbone.feature_cache = object()  # type: ignore[assignment]
    with pytest.raises(BadInputError, match="leave the others waiting in the tower"):
        refuse_unless_shardable(backbone, M2PT(2, 2))


def test_a_backbone_that_names_no_units_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="the weights of OpenClipLlama cannot be shared out"):
        Backbone.sharding_units(random_backbone(tmp_path))
