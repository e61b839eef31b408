"""An adapter's configuration becomes its method again, and nothing else: no class of others, no odd value."""

import json
from typing import Any, Literal

import pytest

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.runs.adapter_method import adapter_method, fits
from tests.runs.test_adapter_alone import METHODS

KEPT = PrefixTuning(5, init_text="a circle", freeze_first=2)


@pytest.mark.parametrize("name", [*METHODS, "kept words"])
def test_every_method_comes_back(name: str) -> None:
    method = KEPT if name == "kept words" else METHODS[name]
    config = json.loads(json.dumps({"peft_type": method.name.upper(), "arguments": method.adapter_config()}))
    made = adapter_method(config, "x")
    assert type(made) is type(method)
    assert made.name == method.name
    assert made.adapter_config() == method.adapter_config()
    assert made.part_names() == method.part_names()


M2PT: dict[str, Any] = {"visual_length": 3, "textual_length": 2}
HOSTILE: dict[str, tuple[object, object, str]] = {
    "an unknown method": ("TVP", {}, "TVP is no method of the library"),
    "a class path": ("os.system", {}, "is no method of the library"),
    "the class of combinations": ("COMBINED", {"methods": []}, "is no method of the library"),
    "no name": (None, {}, "None is no method"),
    "no arguments": ("M2PT", None, "no arguments in here"),
    "an unknown argument": ("M2PT", {**M2PT, "length": 3}, "m2pt has no argument 'length'"),
    "self": ("M2PT", {**M2PT, "self": 3}, "m2pt has no argument 'self'"),
    "a text for a number": ("M2PT", {**M2PT, "visual_length": "3"}, "'3' is no visual_length"),
    "true for a number": ("M2PT", {**M2PT, "visual_length": True}, "True is no visual_length"),
    "a fraction for a number": ("M2PT", {**M2PT, "visual_length": 3.5}, "3.5 is no visual_length"),
    "a number for a switch": ("M2PT", {**M2PT, "interaction": 1}, "1 is no interaction"),
    "an unknown word": ("M2PT", {**M2PT, "visual_depth": "deeper"}, "'deeper' is no visual_depth"),
    "a value that asks for another": ("PREFIX", {"init_text": "${oc.env:HOME}"}, "is no init_text"),
    "layers that are no numbers": ("M2PT", {**M2PT, "visual_layers": ["0"]}, "is no visual_layers"),
    "a negative length": ("M2PT", {**M2PT, "visual_length": -1}, "visual_length"),
    "an argument that adapters do not keep": ("M2PT", {**M2PT, "dropout": 0.5}, "keeps no argument 'dropout'"),
    "a colour of four": ("PIXEL_PROMPT", {"fill": [0.0, 0.0, 0.0, 0.0]}, "is no fill"),
    "an alpha beyond fractions": ("LORA", {"alpha": 10**400}, "too large"),
    "a text for a layer's rank": ("LORA", {"ranks": {"q_proj": "4"}}, "is no ranks"),
    "ranks in a list": ("LORA", {"ranks": [4]}, "is no ranks"),
    "a name of no layer": ("LORA", {"ranks": {"q proj": 4}}, "is no ranks"),
    "a target that asks for another value": ("LORA", {"targets": ["${oc.env:HOME}"]}, "is no targets"),
    "a tuner that peft does not have": ("PEFT_TUNER", {"tuner": "os.system", "settings": {}}, "no tuner of peft"),
    "a setting of a tuner that asks for another value": (
        "PEFT_TUNER",
        {"tuner": "lora", "settings": {"target_modules": ["${oc.env:HOME}"]}},
        "is no settings",
    ),
    "a tuner's setting of another type": ("PEFT_TUNER", {"tuner": "lora", "settings": {"r": {"q": 1}}}, "r is"),
    "a tuner's scale beyond fractions": (
        "PEFT_TUNER",
        {"tuner": "lora", "settings": {"lora_alpha": 10**400}},
        "lora_alpha is",
    ),
    "settings in a list": ("PEFT_TUNER", {"tuner": "lora", "settings": [1]}, "is no settings"),
    "another member": ("LORA+APROMPT", {"lora": {}, "adapter": {}}, "'adapter' is no method of this adapter"),
    "a missing member": ("LORA+APROMPT", {"lora": {}}, "'aprompt' is missing"),
    "a member of nonsense": ("LORA+APROMPT", {"lora": {}, "aprompt": 3}, "3 are no arguments"),
    "a method twice": ("LORA+LORA", {"lora": {}}, "lora, lora"),
}


def test_values_by_the_names_of_layers_come_back() -> None:
    layers = {
        "targets": ["q_proj"],
        "ranks": {"layers.0.self_attn.q_proj": 3},
        "alphas": {"layers.1.self_attn.q_proj": 5},
    }
    arguments = {"rank": 2, "alpha": 4.0, "vision": False, "interaction": True, **layers}
    made = adapter_method({"peft_type": "LORA", "arguments": arguments}, "adapter_config.json")
    assert made.adapter_config() == arguments


def test_a_switch_is_no_number_also_where_words_are_listed() -> None:
    assert fits(1, Literal[1, "all"])
    assert not fits(True, Literal[1, "all"])
    assert not fits(1, Literal[True])
    assert not fits(1.0, Literal[1])


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_adapter_says_is_refused(what: str) -> None:
    name, arguments, message = HOSTILE[what]
    with pytest.raises(BadInputError, match=message) as refused:
        adapter_method({"peft_type": name, "arguments": arguments}, "adapter_config.json")
    assert len(str(refused.value).splitlines()) <= 3
