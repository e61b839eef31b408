"""Prompts and prefixes that start from a text: at the first step the model that reads it in front of everything."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from experiments.configuration.cli import parse_experiment
from experiments.runs.folder import deciding
from lightning_m2pt.answering.greedy import greedy_answers
from lightning_m2pt.backbones.base import Backbone
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.methods.base import Method
from lightning_m2pt.methods.combined import Combined
from lightning_m2pt.methods.lora import Lora
from lightning_m2pt.methods.m2pt import M2PT
from lightning_m2pt.methods.prefix_tuning import PrefixTuning
from lightning_m2pt.methods.rows_of_words import keys_and_values_of_words, rows_of_words, uncompiled
from lightning_m2pt.parallel.units import share_out
from lightning_m2pt.storage.adapter_base import AdapterBase
from lightning_m2pt.storage.adapter_folder import check_adapter, load_adapter, save_adapter
from lightning_m2pt.testing.random_backbone import TEXT_LAYERS, WIDTH, random_batch
from lightning_m2pt.tuning.module import TuningModule
from tests.backbones.test_families import of_every_family
from tests.support.models.decoders import of_family
from tests.support.ranks import on_ranks
from tests.support.small_experiment import small_words
from tests.support.small_training import loader_of, one_step, small_trainer
from tests.support.stored_backbone import store_backbone, stored
from tests.support.strategies.sharded_training import compare, on_both
from tests.support.towers.float64_islands import float64_islands

TEXT = "what color is red"
TOKENS = [22, 23, 12, 24]
"""Those of the text."""
OFF = {"visual_length": 0, "visual_rows_to_text": "none", "interaction": False}
EXACT = {"rtol": 0.0, "atol": 1e-12}


@pytest.fixture
def in_double() -> Iterator[None]:
    """Methods are built in float64, so that nothing of what they start from is rounded."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "b"
    store_backbone(path)
    return path


def loaded(folder: Path, dtype: str = "float64") -> Backbone:
    backbone = stored(folder, dtype)
    backbone.load()
    return backbone


def built(backbone: Backbone, method: Method) -> Method:
    method.check(backbone.shape)
    method.check_words(backbone)
    method.build(backbone, torch.Generator().manual_seed(7))
    return method


def with_text_in_front(backbone: Backbone, tokens: list[int], rows: Tensor) -> Tensor:
    """Returns what the untouched decoder makes of rows with a text's tokens in front of them."""
    words = backbone.token_embedding()(torch.tensor([tokens])).expand(len(rows), -1, -1)
    return backbone.decode_rows(torch.cat([words, rows], dim=1))[:, len(tokens) :]


METHODS = {
    "prompts in the sequence": lambda: M2PT(textual_length=4, init="words", init_text=TEXT, path="token", **OFF),
    "prompts as keys and values": lambda: M2PT(textual_length=4, init="words", init_text=TEXT, path="prefix", **OFF),
    "a repeated text": lambda: M2PT(textual_length=6, init="words", init_text=TEXT, **OFF),
    "a prefix": lambda: PrefixTuning(4, interaction=False, init_text=TEXT),
    "a prefix, some of it frozen": lambda: PrefixTuning(6, interaction=False, init_text=TEXT, freeze_first=2),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("in_double")
def test_the_first_step_has_the_model_that_reads_the_text_in_front(folder: Path, name: str) -> None:
    backbone = loaded(folder)
    rows = torch.randn(2, 7, WIDTH, generator=torch.Generator().manual_seed(1))
    batch = random_batch(answer=1, dtype=torch.float64)
    method = built(backbone, METHODS[name]())
    length = method.rows_before_text()
    tokens = [TOKENS[row % 4] for row in range(length)]
    with torch.no_grad():
        expected = with_text_in_front(backbone, tokens, rows)
        embeddings, _, spans = backbone.assemble(batch)
        words = backbone.token_embedding()(torch.tensor([tokens]))
        answered = []
        for sample in range(len(batch)):
            given = embeddings[sample : sample + 1, : int((spans[sample] != Span.PADDING).sum())]
            generated = backbone.language_model.generate(
                inputs_embeds=torch.cat([words, given], dim=1), max_new_tokens=5, do_sample=False, eos_token_id=None
            )
            answered.append(generated[0].tolist())
        method.attach(backbone)
        torch.testing.assert_close(backbone.decode_rows(rows), expected, **EXACT)
        ours = [answer.token_ids for answer in greedy_answers(backbone, batch, 5, end_token_id=-1)]
    assert ours == answered


@of_every_family
@pytest.mark.usefixtures("in_double")
def test_every_family_gives_what_its_own_layers_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Multipliers of word embeddings, windows, norms of keys: rows behind the text see what they would see of it."""
    backbone, tokens = of_family(tmp_path, name), [5, 9, 3, 30]
    rows = torch.randn(2, 7, backbone.shape.text_width, generator=torch.Generator().manual_seed(1))
    with float64_islands(monkeypatch, backbone.language_model), torch.no_grad():
        expected = with_text_in_front(backbone, tokens, rows)
        prompts = M2PT(textual_length=4, init="normal", **OFF)
        prompts.build(backbone, torch.Generator().manual_seed(7))
        prompts.textual_prompts.start_from(rows_of_words(backbone, tokens, "hidden"))
        prefix = PrefixTuning(4, interaction=False)
        prefix.build(backbone, torch.Generator().manual_seed(7))
        prefix.prefix.start_from(keys_and_values_of_words(backbone, tokens))
        for method in (prompts, prefix):
            method.attach(backbone)
            torch.testing.assert_close(backbone.decode_rows(rows), expected, rtol=1e-11, atol=1e-11)
            method.detach(backbone)


@pytest.mark.usefixtures("in_double")
def test_rows_of_layers_are_hidden_states_or_the_words_again(folder: Path) -> None:
    backbone = loaded(folder)
    words = backbone.token_embedding().weight[[*TOKENS, TOKENS[0]]][None]
    states = backbone.language_model.model(inputs_embeds=words, output_hidden_states=True).hidden_states
    hidden = built(backbone, M2PT(textual_length=5, init="words", init_text=TEXT, **OFF))
    again = built(backbone, M2PT(textual_length=5, init="words", init_text=TEXT, init_layers="embeddings", **OFF))
    for layer in range(TEXT_LAYERS):
        torch.testing.assert_close(hidden.textual_prompts.rows[str(layer)], states[layer], **EXACT)
        assert torch.equal(again.textual_prompts.rows[str(layer)], words)
    one = built(backbone, M2PT(textual_length=5, textual_layers=[2], init="words", init_text=TEXT, **OFF))
    torch.testing.assert_close(one.textual_prompts.rows["2"], states[2], **EXACT)


def test_visual_prompts_beside_words_start_as_without_them(folder: Path) -> None:
    backbone = loaded(folder, "float32")
    words = built(backbone, M2PT(3, 4, init="words", init_text=TEXT))
    plain = built(backbone, M2PT(3, 4))
    for name, tensor in plain.visual_prompts.rows.items():
        assert torch.equal(words.visual_prompts.rows[name], tensor)
    assert words.textual_prompts.rows["0"].dtype == torch.float32
    assert not words.textual_prompts.rows["1"].is_inference()


def test_numbers_of_half_precision_are_taken_over_bit_for_bit(folder: Path) -> None:
    backbone = loaded(folder, "bfloat16")
    method = built(backbone, M2PT(0, 4, visual_rows_to_text="none", init="words", init_text=TEXT))
    rows = rows_of_words(backbone, TOKENS, "hidden")
    assert rows[1].dtype == torch.bfloat16
    assert all(torch.equal(method.textual_prompts.rows[str(n)].bfloat16(), each) for n, each in enumerate(rows))


def test_one_pass_of_one_length_compiles_nothing_and_hooks_nothing(folder: Path) -> None:
    backbone = loaded(folder, "float32")
    layers = list(backbone.decoder().layers)
    calls: list[int] = []
    for number, layer in enumerate(layers):
        layer.forward = partial(lambda place, *given, **named: calls.append(place), number)
    compiled = [layer.forward for layer in layers]
    keys_and_values_of_words(backbone, TOKENS)
    rows_of_words(backbone, TOKENS, "hidden")
    assert not calls
    assert [layer.forward for layer in layers] == compiled
    assert not any(layer._forward_pre_hooks for layer in layers)
    with pytest.raises(RuntimeError), uncompiled(layers):
        raise RuntimeError
    assert [layer.forward for layer in layers] == compiled


def test_frozen_positions_are_not_trained_not_counted_and_not_saved(folder: Path, tmp_path: Path) -> None:
    backbone = stored(folder)
    method = PrefixTuning(5, interaction=False, init_text=TEXT, freeze_first=2, dropout=0.5)
    module = TuningModule(backbone, method)
    steps = [batch for seed in (1, 2) for batch in one_step([random_batch(seed=seed)])]
    small_trainer(max_steps=2).fit(module, loader_of(steps))
    text = keys_and_values_of_words(released(backbone, method), [*TOKENS, TOKENS[0]])
    learned = method.prefix.keys_and_values().detach()
    assert method.prefix.training
    assert torch.equal(learned[:, :, :2], text[:, :, :2])  # dropout takes nothing of them either
    assert list(method.named_tensors()) == ["prefix.embedding"]
    [part] = method.parameter_parts()
    # three positions of keys and values of two heads of 8 in three layers
    assert part.parameters == part.added == 3 * 2 * 16 * TEXT_LAYERS
    assert method.toggles()["freeze_first"] == 2
    assert "frozen" not in " ".join(module.state_dict())
    save_adapter(tmp_path, method, AdapterBase("none", "v2:1"), "card")
    other = PrefixTuning(5, interaction=False, init_text=TEXT, freeze_first=2)
    check_adapter(tmp_path, other, "v2:1")
    built(backbone, other)
    load_adapter(tmp_path, other)
    method.eval()
    assert torch.equal(other.prefix.keys_and_values(), method.prefix.keys_and_values())
    rows, dropped = other.prefix.keys_and_values()[:, :, 2:], learned[:, :, 2:]
    assert not torch.equal(rows, text[:, :, 2:])
    assert 0.35 < float((dropped == 0).float().mean()) < 0.65
    assert torch.equal(dropped, torch.where(dropped == 0, 0.0, 2 * rows))


def released(backbone: Backbone, method: Method) -> Backbone:
    method.detach(backbone)
    return backbone


def test_an_adapter_with_frozen_positions_belongs_to_its_text(folder: Path, tmp_path: Path) -> None:
    backbone = loaded(folder, "float32")
    method = built(backbone, PrefixTuning(5, init_text=TEXT, freeze_first=2))
    save_adapter(tmp_path, method, AdapterBase("none", "v2:1"), "card")
    for other, named in (
        (PrefixTuning(5, init_text="what", freeze_first=2), "init_text is"),
        (PrefixTuning(5, init_text=TEXT, freeze_first=1), "freeze_first is 2 in the adapter"),
        (PrefixTuning(5, init_text=TEXT), "freeze_first is"),
        (PrefixTuning(5), "freeze_first is"),
    ):
        with pytest.raises(BadInputError, match=named):
            check_adapter(tmp_path, other, "v2:1")
    plain = {"length": 5, "reparameterisation": None, "interaction": True}
    assert PrefixTuning(5).adapter_config() == plain  # as of before there was a text
    assert PrefixTuning(5, init_text=TEXT).adapter_config() == plain
    assert set(M2PT(2, 2).adapter_config()) == set(M2PT(2, 4, init="words", init_text=TEXT).adapter_config())


def test_nothing_is_read_of_a_base_that_is_only_counted(folder: Path) -> None:
    backbone = stored(folder)
    backbone.build_on_meta()
    method = PrefixTuning(5, init_text=TEXT, freeze_first=2)
    method.build(backbone, torch.Generator())
    assert method.prefix.embedding.is_meta
    assert method.prefix.embedding.shape == (3, 2 * 16 * TEXT_LAYERS)
    prompts = M2PT(2, 4, init="words", init_text=TEXT)
    prompts.build(backbone, torch.Generator())
    assert prompts.textual_prompts.rows["0"].is_meta


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: M2PT(init="words"), "no word is given"),
        (lambda: M2PT(init="words", init_text=" "), "no word is given"),
        (lambda: M2PT(textual_length=0, init="words", init_text=TEXT), "there are none"),
        (lambda: M2PT(init_text=TEXT), "init_text says .* init is xavier_uniform"),
        (lambda: M2PT(init="vocabulary", init_layers="embeddings"), "init_layers says .* init is vocabulary"),
        (lambda: PrefixTuning(4, init_text="\n"), "no word"),
        (lambda: PrefixTuning(4, init_text=TEXT, reparameterisation=8), "made of an embedding"),
        (lambda: PrefixTuning(4, freeze_first=1), "no text that they keep"),
        (lambda: PrefixTuning(4, init_text=TEXT, freeze_first=4), "4 of 4 positions"),
        (lambda: PrefixTuning(4, init_text=TEXT, freeze_first=-1), "-1 of 4 positions"),
    ],
)
def test_words_that_start_nothing_are_refused(make, named) -> None:
    with pytest.raises(BadInputError, match=named):
        make()


@pytest.mark.parametrize("text", ["what purple", f"{TEXT} {TEXT}", "<s> what"])
def test_a_text_that_cannot_be_read_is_refused_before_weights_load(folder: Path, text: str) -> None:
    """By whoever makes the module ready, alone or inside ``Combined``; a loaded base changes nothing about it."""
    members = [Lora(2, interaction=False), PrefixTuning(4, init_text=text)]
    for method in (M2PT(0, 4, visual_rows_to_text="none", init="words", init_text=text), Combined(members)):
        backbone = stored(folder)
        module = TuningModule(backbone, method)
        with pytest.raises(BadInputError) as refused:
            module.configure_model()
        assert refused.value.where == "model.method.init_text"
        assert not backbone.is_loaded


def test_only_a_text_that_is_given_stands_in_a_runs_name(tmp_path: Path) -> None:
    words = small_words(tmp_path)
    plain = deciding(parse_experiment(words))["method"]["init_args"]
    assert not {"init_text", "init_layers"} & set(plain)
    given = ["--model.method.init=words", "--model.method.init_text=what is it"]
    named = deciding(parse_experiment([*words, *given]))["method"]["init_args"]
    assert named == {**plain, "init": "words", "init_text": "what is it"}
    other = deciding(parse_experiment([*words, *given, "--model.method.init_layers=embeddings"]))["method"]["init_args"]
    assert other == {**named, "init_layers": "embeddings"}
    prefix = small_words(tmp_path, "experiments/ptum_prefix_base.yaml")
    plain = deciding(parse_experiment(prefix))["method"]["init_args"]
    assert not {"init_text", "freeze_first"} & set(plain)
    kept = [*prefix, "--model.method.init_text=what", "--model.method.freeze_first=1"]
    named = deciding(parse_experiment(kept))["method"]["init_args"]
    assert named == {**plain, "init_text": "what", "freeze_first": 1}


def test_shared_out_weights_give_the_same_numbers(folder: Path) -> None:
    def beginnings(ranks: int) -> list[dict[str, Tensor]]:
        torch.distributed.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=ranks)
        mesh, made = init_device_mesh("cpu", (ranks,)), []
        for method in (
            M2PT(0, 4, visual_rows_to_text="none", init="words", init_text=TEXT, lm_head=True),
            PrefixTuning(4, init_text=TEXT, freeze_first=1),
        ):
            backbone = stored(folder, "bfloat16")
            if ranks > 1:
                backbone.load_in_shares(partial(share_out, backbone, [], mesh))
            else:
                backbone.load()
            built(backbone, method)
            frozen = method.prefix.frozen_rows if isinstance(method, PrefixTuning) else torch.empty(0)
            tensors = {**method.named_tensors(), "frozen": frozen}
            made.append({name: each.detach().numpy() for name, each in tensors.items()})
        return made

    [alone] = on_ranks(1, beginnings, 1)
    for shared in on_ranks(2, beginnings, 2):
        for ours, theirs in zip(shared, alone, strict=True):
            assert ours.keys() == theirs.keys()
            assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_a_training_on_shared_out_weights_begins_and_ends_as_on_one_device(folder: Path) -> None:
    """By the real strategy, which has run no pass of its own when the text goes through its layers."""

    def make() -> tuple[Backbone, Method]:
        prompts = M2PT(2, 4, init="words", init_text=TEXT)
        return stored(folder), Combined([Lora(2, dropout=0.0, interaction=False), prompts])

    steps = [one_step([random_batch(seed=2 * number), random_batch(seed=2 * number + 1)]) for number in range(2)]
    compare(*on_both(make, steps), tolerance=2e-4)
