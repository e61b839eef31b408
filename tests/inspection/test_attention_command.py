"""``m2pt attention``: what it writes for a run, and its page."""

import io
import json
import re
import shutil
import subprocess
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from experiments.commands.questions_of_sets import questions_of_sets, tuned_with_sets
from experiments.runs.loading import experiment_of_run
from lightning_m2pt.commands.questions import file_names, own_question
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.batch import Span
from lightning_m2pt.inputs.picture_map import one_square
from lightning_m2pt.inspection.activation import Activations
from lightning_m2pt.inspection.named_maps import LayerAttention, SampleAttention
from lightning_m2pt.inspection.page import MEAN_OF_HEADS, MOST_BYTES, attention_page
from lightning_m2pt.inspection.pictures import (
    activation_figure,
    aligned_columns,
    chosen_rows,
    overlay_figure,
    patch_attention,
)
from lightning_m2pt.inspection.samples import InspectedQuestion, ShownSample, Side
from lightning_m2pt.main import main
from lightning_m2pt.system import checkout
from lightning_m2pt.testing.random_backbone import random_batch
from tests.support.small_experiment import run_with_a_set

LANGUAGE = [Span.TEXTUAL_PROMPT] * 2 + [Span.SYSTEM] + [Span.PATCH] * 4 + [Span.QUESTION] * 2 + [Span.ANSWER]


def random_layers(spans: list[Span], prompts: int, heads: int, seed: int, layers: int = 2) -> tuple:
    generator, size = torch.Generator().manual_seed(seed), len(spans)
    maps = [torch.rand(heads, size, size, generator=generator).softmax(-1) for _ in range(layers)]
    return tuple(LayerAttention(number, one, torch.tensor(spans), prompts) for number, one in enumerate(maps))


def shown(heads: int = 3, text: str = "Is it red?", layers: int = 2) -> ShownSample:
    sides = []
    for name, prompts in (("tuned", 2), ("frozen", 0)):
        spans = LANGUAGE[2 - prompts :]
        tower = [Span.VISUAL_PROMPT] * prompts + [Span.CLS] + [Span.PATCH] * 4
        attention = SampleAttention(
            random_layers(spans, prompts, heads, prompts, layers),
            (random_layers(tower, prompts, heads, 5),),
            (one_square(8, 4),),
        )
        tokens = tuple(f"word{number}" for number in range(len(spans)))
        sides.append(Side(name, "yes", attention, tokens, {len(spans) - 2: "yes"}))
    question = InspectedQuestion("pope", "one", text, "yes", "plain", random_batch(size=1), 5, (2,))
    return ShownSample(question, (numpy.zeros((8, 8, 3), numpy.uint8),), tuple(sides))


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1])


class Addresses(HTMLParser):
    """Collects everything a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {key}={value}" for key, value in attrs if key in {"src", "href", "srcset", "data"}]


def test_the_page_needs_nothing_from_outside_and_is_small():
    page = attention_page([shown(), shown()])
    addresses = Addresses()
    addresses.feed(page)
    assert addresses.found == []
    for word in ("http:", "https:", "//cdn", "@import", "url(", "fetch(", "XMLHttpRequest", "import("):
        assert word not in page
    assert len(page.encode()) < MOST_BYTES == 5_000_000


def test_the_page_holds_the_probabilities():
    sample = shown()
    for side, written in zip(sample.sides, data_of(attention_page([sample]))["samples"][0]["sides"], strict=True):
        layers, heads, rows, columns = written["maps"]["shape"]
        assert (layers, heads, rows) == (2, 3, len(written["rows"]) + 1)
        stored = numpy.frombuffer(b64decode(written["maps"]["values"]), numpy.uint8)
        values = (stored.reshape(layers, heads, rows, columns) / 255.0) ** 2
        for number, layer in enumerate(side.attention.language):
            for place, row in enumerate(written["rows"]):
                assert side.attention.language[0].spans[row] in (Span.QUESTION, Span.ANSWER)
                assert numpy.abs(values[number, :, place] - layer.probabilities[:, row].numpy()).max() < 0.004
            assert numpy.abs(values[number, :, -1] - layer.probabilities.mean(1).numpy()).max() < 0.004


def test_learned_keys_are_columns_without_rows_on_the_page_and_in_overlays():
    """The page and the overlays show the same numbers with three more columns in front."""
    plain = shown().sides[0]
    layers = [with_learned_keys(layer, 3) for layer in plain.attention.language]
    wider = Side(
        plain.name,
        plain.answer,
        replace(plain.attention, language=tuple(layers)),
        (*[f"learned key {number}" for number in (1, 2, 3)], *plain.tokens),
        {row + 3: piece for row, piece in plain.predicts.items()},
    )
    pages = [attention_page([replace(shown(), sides=(side,))]) for side in (plain, wider)]
    one, other = (data_of(page)["samples"][0]["sides"][0] for page in pages)
    assert other["rows"] == [row + 3 for row in one["rows"]]
    assert other["spans"] == [int(Span.LEARNED_KEY)] * 3 + one["spans"]
    tables = [
        numpy.frombuffer(b64decode(side["maps"]["values"]), numpy.uint8).reshape(side["maps"]["shape"])
        for side in (one, other)
    ]
    assert tables[1].shape[:-1] == tables[0].shape[:-1]
    assert numpy.abs((tables[1][..., 3:] / 255.0) ** 2 - (tables[0] / 255.0) ** 2 / 2).max() < 0.008
    for (row, _), (wider_row, _) in zip(chosen_rows(plain, []), chosen_rows(wider, []), strict=True):
        numpy.testing.assert_allclose(patch_attention(wider, wider_row).heat, patch_attention(plain, row).heat / 2)
    assert activation_figure(replace(shown(), sides=(wider, plain)), "language").startswith(b"\x89PNG")


def with_learned_keys(layer: LayerAttention, learned: int) -> LayerAttention:
    """Returns a layer half of whose attention goes to learned keys, each the same."""
    heads, rows, _ = layer.probabilities.shape
    front = torch.full((heads, rows, learned), 0.5 / learned)
    spans = torch.cat([torch.full((learned,), int(Span.LEARNED_KEY)), layer.spans])
    return replace(layer, probabilities=torch.cat([front, layer.probabilities / 2], dim=-1), spans=spans)


def test_a_text_cannot_end_the_script():
    hostile = "</script><script>alert(1)</script>"
    page = attention_page([shown(text=hostile)])
    assert page.count("</script>") == 2
    assert data_of(page)["samples"][0]["question"] == hostile


def test_a_page_that_is_too_large_leaves_single_heads_out_and_then_stops():
    sample = shown(heads=64, layers=64)
    whole = len(attention_page([sample]).encode())
    smaller = attention_page([sample], most_bytes=whole)
    assert len(smaller.encode()) < whole
    assert MEAN_OF_HEADS in data_of(smaller)["notes"]
    assert data_of(smaller)["samples"][0]["sides"][0]["maps"]["shape"][1] == 1
    with pytest.raises(BadInputError, match="the page would have"):
        attention_page([sample], most_bytes=10_000)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.slow
def test_a_browser_runs_the_page(tmp_path):
    (tmp_path / "page.html").write_text(attention_page([shown(), shown()]), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    result = subprocess.run(
        ["chromium", *flags, f"file://{tmp_path / 'page.html'}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    body = result.stdout.partition("<body>")[2].partition("<script")[0]
    assert body.count('class="side"') == 2
    assert body.count("<canvas") == 4
    assert "where the answer's “yes” was chosen" in body


def test_columns_of_two_models_stand_below_each_other():
    tuned, frozen = [1, 1, 5, 4, 6, 7], [5, 4, 6, 7, 7]
    sides = [Activations((0,), torch.zeros(1, len(spans)), torch.tensor(spans)) for spans in (tuned, frozen)]
    assert aligned_columns(sides) == [[0, 1, 2, 3, 4, 5, None], [None, None, 0, 1, 2, 3, 4]]


def test_dollar_signs_are_text_and_no_formula():
    text, word = r"$\nothing$ or $5$", r"$\nothing$"
    sample = shown(text=text)
    sides = [
        replace(side, answer=text, tokens=(word,) * len(side.tokens), predicts=dict.fromkeys(side.predicts, word))
        for side in sample.sides
    ]
    sample = replace(sample, sides=tuple(sides))
    for picture in (activation_figure(sample, "language"), overlay_figure(sample), overlay_figure(sample, [word])):
        with Image.open(io.BytesIO(picture)) as opened:
            assert opened.width > 300


def test_overlays_show_the_row_that_was_asked_for():
    side = shown().sides[0]
    assert chosen_rows(side, []) == [(len(LANGUAGE) - 2, "choosing “yes”")]
    assert chosen_rows(side, ["WORD7", "word3"]) == [(7, "from “word7”")]  # word3 is a patch
    overlay = patch_attention(side, 7)
    mean = torch.stack([layer.probabilities.mean(0)[7] for layer in side.attention.language]).mean(0)
    assert torch.equal(torch.from_numpy(overlay.heat).flatten(), mean[3:7])
    assert overlay.share == pytest.approx(float(mean[3:7].sum()))
    assert overlay.highest == pytest.approx(float(mean[3:7].max()))
    assert overlay.cell == 4


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of two steps with one evaluation set, whose attention was looked at."""
    folder = run_with_a_set(tmp_path_factory.mktemp("run"))
    assert main(["attention", "--run", str(folder)]) == 0
    return folder


def test_the_command_writes_pictures_arrays_and_a_page(run):
    folder = run / "figures" / "attention"
    names = {path.name for path in folder.iterdir()}
    stems = {name.removesuffix(".safetensors") for name in names if name.endswith(".safetensors")}
    assert len(stems) == 3
    assert names == {"attention.html"} | {
        f"{stem}{end}"
        for stem in stems
        for end in (".safetensors", ".json", "-language.png", "-vision.png", "-overlay.png")
    }
    for stem in stems:
        tensors, named = load_file(folder / f"{stem}.safetensors"), json.loads((folder / f"{stem}.json").read_text())
        for key, columns in ((key, columns) for side in named["sides"] for key, columns in layers(named, side)):
            maps = tensors[key]
            assert maps.shape[1:] == (len(columns["spans"]),) * 2 == (len(columns["tokens"]),) * 2
            torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:2]))
            torch.testing.assert_close(tensors[f"{key}.activation"], maps.mean(dim=(0, 1)))
        assert set(named["sides"]) == {"tuned", "frozen"}
        with Image.open(folder / f"{stem}-overlay.png") as picture:
            assert picture.width > 300
    assert len((folder / "attention.html").read_bytes()) < MOST_BYTES


def layers(named: dict, side: str) -> list[tuple[str, dict]]:
    parts = named["sides"][side]
    return [
        (f"{side}.{part}.{layer}", columns) for part in ("language", "vision") for layer, columns in parts[part].items()
    ]


def test_chosen_layers_and_questions(run, tmp_path):
    some = next(path for path in (run / "figures" / "attention").glob("*.json"))
    named = json.loads(some.read_text())
    sample = f"{named['set']}:{named['id']}"
    words = ["attention", "--run", str(run), "--sample", sample, "--layer", "1", "--output", str(tmp_path)]
    assert main(words) == 0
    tensors = load_file(tmp_path / f"{some.stem}.safetensors")
    assert {key.split(".")[2] for key in tensors} == {"1"}
    everything = load_file(some.with_suffix(".safetensors"))
    assert all(torch.equal(tensor, everything[key]) for key, tensor in tensors.items())


def test_an_own_picture_needs_no_checkout_and_no_data_and_is_seen_as_a_sets_is(run, tmp_path, monkeypatch):
    some = next(path for path in (run / "figures" / "attention").glob("*.json"))
    named = json.loads(some.read_text())
    picture = run.parents[2] / "vsr" / "images" / picture_of(run, named["id"])
    monkeypatch.setattr(checkout, "find_checkout", lambda: None)
    words = ["--image", str(picture), "--question", named["question"], "--output", str(tmp_path)]
    assert main(["attention", "--run", str(run), *words]) == 0
    written = json.loads((tmp_path / f"own-{picture.stem}.json").read_text())
    assert written == {**named, "set": "own", "id": picture.stem, "target": "", "sides": written["sides"]}
    assert sorted(written["sides"]) == ["frozen", "tuned"]
    of_set, own = load_file(some.with_suffix(".safetensors")), load_file(tmp_path / f"own-{picture.stem}.safetensors")
    for name in ("tuned.vision.0", "frozen.vision.0"):
        assert torch.equal(own[name], of_set[name])
    rows = of_set["tuned.language.0"].shape[1]  # the set's limit may have cut its answer off
    torch.testing.assert_close(own["tuned.language.0"][:, :rows, :rows], of_set["tuned.language.0"])


def test_files_of_two_questions_never_have_one_name():
    def named(set_name: str, *ids: str) -> list[str]:
        question = replace(shown().question, set_name=set_name)
        return file_names([replace(question, id=each) for each in ids])

    assert named("vsr", "test/3", "test/4") == ["vsr-test-3", "vsr-test-4"]
    assert named("vsr", "test/3", "test/3") == ["vsr-test-3"] * 2  # one question, named twice
    for ids in (("狗/1", "猫/1"), ("a/b", "a-b"), ("a", "A"), ("x" * 300 + "1", "x" * 300 + "2")):
        names = named("own", *ids)
        assert len({name.lower() for name in names}) == 2
        assert all(len(name) < 200 and name.isascii() for name in names)


def test_questions_are_asked_as_their_set_or_the_run_says(run):
    experiment = tuned_with_sets(run, None, ["--benchmarks.max_new_tokens", "7"], None)
    (benchmark,) = experiment.benchmarks
    of_set = questions_of_sets(experiment, [], 2)
    assert [each.id for each in of_set] == [each.id for each in benchmark.questions()[:2]]
    assert {(each.max_new_tokens, each.template) for each in of_set} == {(7, benchmark.template.name)}
    picture = run.parents[2] / "vsr" / "images" / picture_of(run, of_set[0].id)
    own = own_question(picture, of_set[0].text, benchmark.template, experiment.model)
    assert (own.set_name, own.target, own.max_new_tokens) == ("own", "", 32)
    assert torch.equal(own.batch.input_ids, of_set[0].batch.input_ids)
    assert torch.equal(own.batch.pixel_values, of_set[0].batch.pixel_values)


def picture_of(run: Path, question: str) -> str:
    """Returns the file name of a question's picture."""
    (benchmark,) = experiment_of_run(run).benchmarks
    return next(one.image_id for one in benchmark.read() if one.id == question)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image", "x.png"], "a picture and a question belong together"),
        (["--question", "What is this?"], "a picture and a question belong together"),
        (["--image", "x.png", "--question", "a", "--sample", "vsr"], "an own picture is of no set"),
        (["--image", "x.png", "--question", "a", "--data.root", "data"], "an own picture is of no set"),
        (["--image", "no/such.png", "--question", "a"], "no/such.png"),
        (["--image", "x.png", "--question", "a", "--data.batch_size", "3"], "'--data.batch_size' is not known here"),
        (["--sample", "nothing:1"], "the run has no set 'nothing'"),
        (["--sample", "SET:nobody"], "has no question 'nobody'"),
        (["--layer", "9"], "layer 9 does not exist"),
    ],
)
def test_mistakes_end_in_three_lines_before_weights_load(run, capsys, monkeypatch, words, message):
    monkeypatch.setattr(
        "lightning_m2pt.runs.tuned_model.load_with_adapter", lambda *_: pytest.fail("weights were loaded")
    )
    named = json.loads(next((run / "figures" / "attention").glob("*.json")).read_text())
    words = [word.replace("SET", named["set"]) for word in words]
    assert main(["attention", "--run", str(run), *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[0]
    assert len(lines) <= 3
