"""Several adapters on one base: each answers as if it were loaded alone, whatever was asked or failed before."""

import gc
import json
import shutil
from pathlib import Path

import pytest
import torch

import lightning_m2pt
from lightning_m2pt.application.model import Model
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.frozen import Frozen
from lightning_m2pt.methods.full import Full
from lightning_m2pt.methods.layer_norm import LayerNormTuning
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.storage.adapter_manifest import CONFIG_DIGEST, config_digest
from lightning_m2pt.system.tensor_hashes import hash_tensors
from tests.support.answers.saved_adapters import TOKENS, asked_of, save_invented, write_pictures

METHODS: dict[str, Method] = {
    "m2pt": M2PT(visual_length=3, textual_length=2),
    "lora": Lora(rank=2),
    "norms": LayerNormTuning(vision=True),
    "full": Full(),
    "prefix": PrefixTuning(reparameterisation=None),
}


class Adapters:
    """Folders of adapters by name, and what the model of each answers alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = asked_of(write_pictures(folder / "pictures"))
        self.answers = {
            name: save_invented(folder / name, method, self.asked, seed=seed)
            for seed, (name, method) in enumerate(METHODS.items())
        }
        self.answers["frozen"] = save_invented(folder / "none", Frozen(), self.asked)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    return Adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def model(adapters: Adapters) -> Model:
    made = lightning_m2pt.load(adapters.folder / "m2pt", base="testbed", device="cpu")
    for name in METHODS:
        if name != "m2pt":
            made.add(name, adapters.folder / name)
    return made


def backbone_of(model: Model) -> Backbone:
    return model._base.backbone


def answers_of(model: Model, adapters: Adapters) -> list[str]:
    return model.ask_all(adapters.asked, max_new_tokens=TOKENS)


def test_the_invented_adapters_answer_differently(adapters: Adapters) -> None:
    assert len({tuple(answers) for answers in adapters.answers.values()}) == len(adapters.answers)


def test_every_adapter_answers_as_if_it_were_alone_in_any_order(model: Model, adapters: Adapters) -> None:
    assert model.names == ("default", "lora", "norms", "full", "prefix")
    known = {"default": adapters.answers["m2pt"], **adapters.answers}
    for name in ("full", "default", "norms", "lora", "full", "prefix", "norms", "default", "default", "lora"):
        model.use(name)
        assert model.name == name
        assert answers_of(model, adapters) == known[name], name


def test_the_untouched_model_stands_beside_on_the_same_weights(model: Model, adapters: Adapters) -> None:
    for name in ("full", "lora"):
        model.use(name)
        untouched = model.frozen()
        assert backbone_of(untouched) is backbone_of(model)
        assert answers_of(untouched, adapters) == adapters.answers["frozen"]
        assert answers_of(model, adapters) == adapters.answers[name]
        assert answers_of(untouched, adapters) == adapters.answers["frozen"]
        assert untouched.template == model.template
        assert untouched.names == ("frozen",)
        assert untouched._tuned["frozen"].method is model.frozen()._tuned["frozen"].method  # compared once
    assert answers_of(untouched.frozen(), adapters) == adapters.answers["frozen"]


@pytest.mark.parametrize("name", ["lora", "m2pt"])
def test_a_model_that_is_gone_leaves_nothing_of_its_method(adapters: Adapters, name: str) -> None:
    alone = lightning_m2pt.load(adapters.folder / name, base="testbed", device="cpu")
    untouched = alone.frozen()
    assert answers_of(alone, adapters) == adapters.answers[name]
    del alone  # its method is attached
    gc.collect()
    assert answers_of(untouched, adapters) == adapters.answers["frozen"]
    again = untouched.frozen()
    again.ask(*adapters.asked[0], max_new_tokens=1)
    del again
    gc.collect()
    assert answers_of(untouched.frozen(), adapters) == adapters.answers["frozen"]


def test_the_base_is_the_same_to_the_last_bit_afterwards(model: Model, adapters: Adapters) -> None:
    fresh = save_and_hash(adapters)
    for name in model.names:
        model.use(name)
        answers_of(model, adapters)
    untouched = model.frozen()
    answers_of(untouched, adapters)
    assert hash_tensors(dict(backbone_of(untouched).state_dict())) == fresh


def save_and_hash(adapters: Adapters) -> str:
    alone = lightning_m2pt.load(adapters.folder / "prefix", base="testbed", device="cpu").frozen()
    return hash_tensors(dict(backbone_of(alone).state_dict()))


def changed_adapter(adapters: Adapters, folder: Path, **changes: object) -> Path:
    shutil.copytree(adapters.folder / "lora", folder)
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({**config, CONFIG_DIGEST: config_digest(config)}))
    return folder


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"base_fingerprint": "v2:" + 64 * "0"}, "another backbone"),
        ({"arguments": {"rank": 3, "alpha": 4.0, "vision": False, "interaction": True}}, "lora_A"),
        ({"peft_type": "MAGIC"}, "magic"),
        ({"template": "nobodys"}, "nobodys"),
    ],
    ids=["another base", "other arguments", "an unknown method", "an unknown template"],
)
def test_a_refused_adapter_leaves_everything_as_it_was(
    model: Model, adapters: Adapters, tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    model.use("norms")
    with pytest.raises(BadInputError, match=f"(?i){named}") as refused:
        model.add("other", changed_adapter(adapters, tmp_path / "changed", **changes))
    assert 1 <= len(str(refused.value).splitlines()) <= 3
    assert "other" not in model.names
    assert model.name == "norms"
    assert answers_of(model, adapters) == adapters.answers["norms"]
    model.use("full")
    assert answers_of(model, adapters) == adapters.answers["full"]


def test_a_flipped_bit_is_refused_before_the_method_is_built(model: Model, adapters: Adapters, tmp_path: Path) -> None:
    folder = changed_adapter(adapters, tmp_path / "flipped")
    path = folder / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInputError, match="not what was saved"):
        model.add("flipped", folder)
    with pytest.raises(BadInputError, match="not what was saved"):
        lightning_m2pt.load(folder, base="testbed")


def test_names_are_known_and_not_taken_twice(model: Model, adapters: Adapters) -> None:
    with pytest.raises(BadInputError, match="no adapter is called 'nobody'") as refused:
        model.use("nobody")
    assert "default, lora" in refused.value.expected
    for name in ("lora", "", "  "):
        with pytest.raises(BadInputError):
            model.add(name, adapters.folder / "prefix")
    assert model.names == ("default", "lora", "norms", "full", "prefix")


def test_a_method_that_breaks_while_it_is_attached_lends_nothing_to_the_next(
    model: Model, adapters: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.use("default")
    answers_of(model, adapters)
    with monkeypatch.context() as broken:
        broken.setattr(Full, "attachment", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        model.use("full")
        with pytest.raises(KeyboardInterrupt):
            answers_of(model, adapters)
    model.use("prefix")
    assert answers_of(model, adapters) == adapters.answers["prefix"]
    model.use("full")
    assert answers_of(model, adapters) == adapters.answers["full"]


def test_an_adapter_that_answers_wrongly_is_taken_away_again(
    model: Model, adapters: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the last step of loading finds: the method that is half there must not stay."""

    def differs(*_: object) -> None:
        raise BadInputError("our forward pass is not that of the library")

    monkeypatch.setattr("lightning_m2pt.tuning.module.refuse_unless_like_library", differs)
    model.use("lora")
    with pytest.raises(BadInputError, match="not that of the library"):
        model.add("wrong", adapters.folder / "full")
    assert answers_of(model, adapters) == adapters.answers["lora"]
    assert torch.is_grad_enabled()
