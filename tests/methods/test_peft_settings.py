"""Settings of peft's tuners: its own names and defaults, and what is refused by name."""

import dataclasses
from typing import Any

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.peft_settings import REASONS, TUNERS
from lightning_m2pt.methods.peft_tuner import PeftTuner
from lightning_m2pt.system.hidden_modules import hidden_module


def test_settings_have_pefts_names_and_defaults() -> None:
    with hidden_module("bitsandbytes"):
        from peft import PeftType
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    for tuner, known in TUNERS.items():
        fields = {each.name: each for each in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(tuner.upper())])}
        assert set(known) <= set(fields), tuner
        for name, setting in known.items():
            field = fields[name]
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            assert setting.default == default or name == "feedforward_modules", f"{tuner}.{name}"
            assert setting.fits(setting.default), f"{tuner}.{name}"


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "a misspelt setting": ("lora", {"rank": 4}, "settings.rank"),
    "what peft would not look at": ("lora", {"task_type": "CAUSAL_LM"}, "settings.task_type"),
    "biases": ("lora", {"bias": "all"}, "settings.bias"),
    "other modules": ("lora", {"modules_to_save": ["lm_head"]}, "settings.modules_to_save"),
    "dropout that leaves nothing": ("lora", {"lora_dropout": 1.0}, "settings.lora_dropout"),
    "dropout that never runs": ("loha", {"module_dropout": 0.1}, "settings.module_dropout"),
    "dropout beside dora": ("lora", {"use_dora": True, "lora_dropout": 0.1}, "settings.lora_dropout"),
    "a start that reads data": ("lora", {"init_lora_weights": "eva"}, "settings.init_lora_weights"),
    "a start whose rest is drawn": ("lora", {"init_lora_weights": "pissa_niter_4"}, "settings.init_lora_weights"),
    "one for true": ("lora", {"init_lora_weights": 1}, "settings.init_lora_weights"),
    "pissa and dora": ("lora", {"init_lora_weights": "pissa", "use_dora": True}, "settings.init_lora_weights"),
    "no rank": ("lora", {"r": 0}, "settings.r"),
    "half a rank": ("lora", {"r": 2.5}, "settings.r"),
    "true for a rank": ("lora", {"r": True}, "settings.r"),
    "a text for a rank": ("lora", {"r": "8"}, "settings.r"),
    "no scale": ("lora", {"lora_alpha": 0}, "settings.lora_alpha"),
    "true for a scale": ("lora", {"lora_alpha": True}, "settings.lora_alpha"),
    "a scale that is no number": ("lora", {"lora_alpha": float("nan")}, "settings.lora_alpha"),
    "a regular expression": ("lora", {"target_modules": ".*proj"}, "settings.target_modules"),
    "one in a pattern": ("lora", {"rank_pattern": {"(q|v)_proj": 2}}, "settings.rank_pattern"),
    "no targets": ("lora", {"target_modules": []}, "settings.target_modules"),
    "a target twice": ("lora", {"target_modules": ["q_proj", "q_proj"]}, "settings.target_modules"),
    "both sizes of oft": ("oft", {"r": 2}, "settings.r"),
    "gram-schmidt of vectors twice": ("hra", {"r": 2, "apply_GS": True}, "settings.apply_GS"),
    "a setting of another tuner": ("ia3", {"r": 2}, "settings.r"),
    "a number for a name": ("lora", {8: 2}, "settings.8"),
    "a series of no turn": ("oft", {"num_cayley_neumann_terms": 1}, "settings.num_cayley_neumann_terms"),
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_do_nothing_or_cannot_be_are_refused(name: str) -> None:
    tuner, settings, where = WRONG[name]
    with pytest.raises(BadInputError) as refused:
        PeftTuner(tuner, settings)
    assert refused.value.where == f"model.method.{where}"
    with pytest.raises(BadInputError) as refused:
        PeftTuner(tuner, None, settings)
    assert refused.value.where == f"model.method.{where.replace('settings', 'vision')}"


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"tuner": "vera", "settings": {}}, "tuner"),
        ({"tuner": "LORA", "settings": {}}, "tuner"),
        ({"tuner": "lora"}, "settings"),
        ({"tuner": "ia3", "settings": {}, "split_factors": True}, "split_factors"),
    ],
    ids=str,
)
def test_arguments_that_mean_nothing_are_refused(arguments: dict[str, Any], where: str) -> None:
    with pytest.raises(BadInputError) as refused:
        PeftTuner(**arguments)
    assert refused.value.where == f"model.method.{where}"


def test_every_reason_is_of_a_setting_that_peft_has() -> None:
    with hidden_module("bitsandbytes"):
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    there = {each.name for kind in PEFT_TYPE_TO_CONFIG_MAPPING.values() for each in dataclasses.fields(kind)}
    assert set(REASONS) <= there
    assert not set(REASONS) & {name for known in TUNERS.values() for name in known}
