"""The pieces of `m2pt report-page`: a page that loads nothing and escapes all texts; figures that show their CSV."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy
import pytest
from PIL import Image

from data_modules.vsr import VSR
from experiments.configuration.cli import parse_experiment
from lightning_m2pt.commands.report_page import write_report
from lightning_m2pt.report.page.cases import LONGEST, one_line
from lightning_m2pt.report.page.comparison import MEAN, Scores
from lightning_m2pt.report.page.figures import STYLE, WIDTHS, ReportFigure, styles_of_methods
from lightning_m2pt.report.page.html import table_html
from lightning_m2pt.report.page.material import read_material
from lightning_m2pt.report.page.parts import MOST_IN_RADAR, looks_of, parts_of
from lightning_m2pt.report.page.variants import lead_of
from lightning_m2pt.report.tables.backbone_gates import gate_notes, missed_gate_notes, say_missed_gates
from lightning_m2pt.report.tables.formats import Column, ReportTable, latex, markdown, terminal
from tests.support.answers.evaluated_folders import mnist_questions, vsr_questions
from tests.support.answers.report_folders import LENGTHS, write_everything, write_tuned

HOSTILE = (
    '<script>alert(1)</script><img src=x onerror=y> & \\input{/etc/passwd} $x_1$ % # ~ ^ \u202e\x00\ud800 "quoted"'
)
ALLOWED = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "h1",
        "h2",
        "h3",
        "h4",
        "nav",
        "main",
        "section",
        "a",
    ),
    *("p", "b", "small", "code", "ul", "li", "div", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("figure", "figcaption", "picture", "source", "img", "article"),
}
LARGEST_PAGE = 3_000_000


class Tags(HTMLParser):
    """Everything a page is made of, and every address in it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.attributes: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        for key, value in attrs:
            self.attributes.add(key)
            if key in ("src", "srcset", "href"):
                self.addresses.append(value)
            if key == "id":
                self.ids.append(value)


def tags_of(path: Path) -> Tags:
    found = Tags()
    found.feed(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return write_everything(tmp_path_factory.mktemp("pieces"), ("lora",))


@pytest.fixture(scope="module")
def figures(outputs) -> dict[str, ReportFigure]:
    material = read_material([outputs])
    (comparison,) = material.comparisons
    parts, _ = parts_of(comparison, lead_of(comparison.groups, material.sweeps), material.sweeps, [], 0)
    return {figure.name: figure for part in parts for figure in part.figures}


def drawn(figure: ReportFigure, width: float):
    with matplotlib.rc_context(STYLE):
        return figure.draw(figure.records, width)


def csv_of(figure: ReportFigure, folder: Path) -> list[dict[str, str]]:
    figure.write(folder)
    return list(csv.DictReader(io.StringIO((folder / f"{figure.name}.csv").read_text())))


def hostile_outputs(root: Path, data: Path | None = None) -> Path:
    """Writes a comparison in which everything that can be text is hostile."""
    outputs, sets = root / "outputs", {"vsr": vsr_questions(40), "mnist": mnist_questions(40)}
    for method, right in (("m2pt", 0.7), ("lora", 0.6)):
        run = write_tuned(outputs, f"{method}_base", method, 0, right, LENGTHS if method == "m2pt" else {}, **sets)
        path = run / "predictions" / "vsr.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for number, line in enumerate(lines[1:]):
            line["question"] = "<b onclick=z>" + line["question"]
            line["id"] = f"<i>{number}"
            line["answer"] += " " + HOSTILE
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (outputs / "lora_base").rename(outputs / "<u>lora_$^base")
    return outputs


def test_hostile_answers_are_text_in_html_and_latex(tmp_path):
    outputs = hostile_outputs(tmp_path)
    write_report(read_material([outputs]), outputs / "report", [], 3)
    found = tags_of(outputs / "report" / "index.html")
    assert found.tags <= ALLOWED
    assert not {name for name in found.attributes if name.startswith("on")}
    page = (outputs / "report" / "index.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search("[\u202e\x00]", page)
    text = (outputs / "report" / "small" / "cases.tex").read_text()
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert r"\$x\_1\$ \% \# \textasciitilde{} \textasciicircum{}" in text
    assert r"\input" not in text
    assert "<script>" not in (outputs / "report" / "small" / "cases.md").read_text()


def test_the_page_loads_nothing_and_is_small(outputs):
    write_report(read_material([outputs]), outputs / "report", [], 2)
    path = outputs / "report" / "index.html"
    found = tags_of(path)
    assert found.addresses
    assert all(address.startswith(("data:image/", "#")) for address in found.addresses)
    assert {address[1:] for address in found.addresses if address[0] == "#"} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    page = path.read_text()
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert path.stat().st_size < LARGEST_PAGE


@pytest.mark.parametrize("width", WIDTHS.values())
def test_every_figure_shows_its_csv(figures, tmp_path, width):
    assert set(figures) == {"radar", "ablation", "lengths", "curves"}
    rows = csv_of(figures["radar"], tmp_path)
    lines = {line.get_label(): line.get_ydata() for line in drawn(figures["radar"], width).axes[0].lines}
    for method, values in lines.items():
        assert values[:-1] == pytest.approx([float(row["percent"]) for row in rows if row["method"] == method])
    assert set(lines) == {row["method"] for row in rows}

    rows = csv_of(figures["ablation"], tmp_path)
    for axes in [axes for axes in drawn(figures["ablation"], width).axes if axes.get_visible()]:
        heights = [bar.get_height() for bar in axes.patches if bar.get_height()]
        assert heights == pytest.approx([float(row["percent"]) for row in rows if row["set"] == axes.get_title()])
        assert axes.get_ylim() == (0, 100)

    rows = csv_of(figures["lengths"], tmp_path)
    axes = drawn(figures["lengths"], width).axes[0]
    values = axes.images[0].get_array()
    ticks = [[int(label.get_text()) for label in of] for of in (axes.get_yticklabels(), axes.get_xticklabels())]
    assert numpy.ma.count(values) == len(rows) < values.size
    for row in rows:
        place = ticks[0].index(int(row["textual_length"])), ticks[1].index(int(row["visual_length"]))
        assert values[place] == pytest.approx(float(row["percent"]))

    rows = csv_of(figures["curves"], tmp_path)
    for axes in drawn(figures["curves"], width).axes:
        own = [row for row in rows if row["quantity"] == axes.get_ylabel()]
        means = [value for line in axes.lines if line.get_marker() not in ("_", "|") for value in line.get_ydata()]
        assert means == pytest.approx([float(row["mean"]) for row in own])


def test_curves_are_the_means_over_seeds_of_what_was_logged(figures):
    loss = [record for record in figures["curves"].records if record["quantity"] == "training loss"]
    first = next(record for record in loss if (record["method"], record["step"]) == ("m2pt", 4))
    assert first["mean"] == pytest.approx(2.0 / 4 + 0.1 + 0.1)
    assert (first["low"], first["high"], first["seeds"]) == (pytest.approx(0.6), pytest.approx(0.8), 3)
    validation = [record for record in figures["curves"].records if record["quantity"] == "validation loss"]
    assert {(record["step"], record["mean"]) for record in validation} == {(20, 0.5)}


def test_figures_have_the_papers_widths_and_fonts(figures, tmp_path):
    for name in ("radar", "ablation", "curves", "lengths"):
        figures[name].write(tmp_path)
        for width, inches in WIDTHS.items():
            with Image.open(tmp_path / f"{name}-{width}.png") as image:
                assert image.width == pytest.approx(300 * inches, abs=1)
                assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
            pdf = (tmp_path / f"{name}-{width}.pdf").read_bytes()
            (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", pdf)
            assert float(box) == pytest.approx(72 * inches)
            assert b"/Type3" not in pdf
            assert b"/FontFile2" in pdf


def test_methods_are_told_apart_by_more_than_colour():
    names = [f"method {number}" for number in range(12)]
    found = styles_of_methods(["frozen", "m2pt", *names], "m2pt", ["frozen"])
    assert len({(look.marker, look.dash) for look in found.values()}) == len(found)


def test_the_methods_of_the_radar_chart_share_no_colour():
    names = ["frozen", "m2pt", *(f"method {number}" for number in range(12))]
    groups = [SimpleNamespace(name=name, runs=[SimpleNamespace(is_tuned=name != "frozen")]) for name in names]
    scores = Scores(groups, groups[1])
    scores.mean_name = MEAN
    scores.by_cell = {(name, MEAN): {"percent": 10.0 + number} for number, name in enumerate(names)}
    found, best = looks_of(scores), ["frozen", "m2pt", *names[-(MOST_IN_RADAR - 2) :]]
    assert len({found[name].colour for name in best}) == MOST_IN_RADAR
    assert set(found) == set(names)


def test_bold_is_bold_in_every_form():
    table = ReportTable("", [Column("a"), Column("b", is_number=True)], [("x_1", "-2")], [], bold=frozenset({(0, 1)}))
    assert "| x\\_1 | **-2** |" in markdown([table])
    assert r"x\_1 & \textbf{$-$2} \\" in latex([table])
    assert "<b>-2</b>" in table_html(table)
    assert "-2" in terminal([table], 80)


def test_what_somebody_else_wrote_becomes_one_line_that_can_be_shown():
    assert one_line("a\n\tb\u202ec\x07\ud800") == r"a b\u202ec\x07\ud800"
    assert one_line("x" * 1000) == "x" * (LONGEST - 1) + "…"


def test_missed_gates_are_said(tmp_path):
    folder = tmp_path / "backbones" / "small"
    folder.mkdir(parents=True)
    gate = {"name": "relation", "threshold": 0.9, "figure": 0.8731, "verdict": "open"}
    content = {"gates": {"gates": [gate, {**gate, "name": "presence", "verdict": "passed"}]}}
    (folder / "training.json").write_text(json.dumps(content))
    arguments = {key: f"backbones/small/{key}" for key in ("vision", "language")}
    notes = gate_notes({"init_args": arguments}, [tmp_path])
    assert notes == ["the backbone misses 1 of its 2 gates: relation 87.3% (asked: 90.0%)"]
    assert gate_notes({"init_args": arguments}, [tmp_path / "elsewhere"]) == []
    pair = {"vision_tower": "/models/vision", "language_model": "/models/language"}
    assert gate_notes({"init_args": pair}, [tmp_path]) == []
    pair["projector"] = str(folder / "projector" / "model.safetensors")
    assert gate_notes({"init_args": pair}, [tmp_path]) == notes


def test_every_table_on_the_second_embedded_backbone_says_what_it_misses():
    def group(backbone: str) -> SimpleNamespace:
        folder = f"lightning_m2pt/embedded/{backbone}"
        arguments = {"vision_config": f"{folder}/vision/x.json", "language_model": f"{folder}/language"}
        run = SimpleNamespace(config={"model": {"backbone": {"init_args": arguments}}})
        return SimpleNamespace(runs=[run, run, SimpleNamespace(config={})])

    assert missed_gate_notes([group("testbed")]) == []
    (note,) = missed_gate_notes([group("testbed"), group("testbed_patch12")])
    assert note.startswith("the backbone misses 2 of its 4 gates: visual relation 87.3%")


def test_pictures_are_those_that_were_asked_and_attention_maps_are_embedded(tmp_path):
    data = tmp_path / "data" / "vsr"
    VSR.write_fake(data)
    vsr = VSR(root=str(data), template="plain")
    asked = [
        {"id": one.id, "subtask": "", "question": one.text, "target": one.target, "image_id": one.image_id}
        for one in vsr.questions()
    ]
    outputs = tmp_path / "outputs"
    runs = [
        write_tuned(outputs, f"{name}_base", name, 0, 0.5, LENGTHS if name == "m2pt" else {}, vsr=asked)
        for name in ("m2pt", "lora")
    ]
    for run, wrong in zip(runs, (0, 1), strict=True):
        path = run / "predictions" / "vsr.jsonl"
        head, *lines = [json.loads(line) for line in path.read_text().splitlines()]
        head["data_revision"] = vsr.data_revision
        for number, line in enumerate(lines):
            line["answer"] = "neither" if number % 2 == wrong else line["target"]
        path.write_text("".join(json.dumps(line) + "\n" for line in [head, *lines]))
    maps = runs[0] / "figures" / "attention"
    maps.mkdir(parents=True)
    for name in ("vsr-1-language", "vsr-1-overlay", "vsr-2-language"):
        Image.new("RGB", (40, 30), "red").save(maps / f"{name}.png")
    material = read_material([outputs])
    (comparison,) = material.comparisons
    parts = {part.name: part for part in parts_of(comparison, comparison.groups[-1], [], [tmp_path], 1)[0]}
    questions = {one.id: one for one in vsr.questions()}
    assert len(parts["cases"].pictures) == 2, parts["cases"].notes
    for (_, name), png in parts["cases"].pictures.items():
        with Image.open(questions[name].image) as original, Image.open(io.BytesIO(png)) as embedded:
            assert numpy.array_equal(numpy.asarray(original.convert("RGB")), numpy.asarray(embedded))
    assert [name for name, _ in parts["attention"].maps] == ["vsr-1-language", "vsr-1-overlay"]
    assert any("1 more" in note for note in parts["attention"].notes)

    next(data.rglob("*.jsonl")).open("a").write(next(data.rglob("*.jsonl")).read_text().splitlines()[0] + "\n")
    parts = {part.name: part for part in parts_of(comparison, comparison.groups[-1], [], [tmp_path], 1)[0]}
    assert not parts["cases"].pictures
    assert any("vsr: no pictures" in note for note in parts["cases"].notes)


@pytest.mark.parametrize(("backbone", "lines"), [("testbed", 0), ("testbed_patch12", 1)])
def test_what_an_evaluation_prints_ends_with_the_gates_its_backbone_misses(capfd, backbone, lines):
    words = ["--config", "experiments/frozen.yaml", "--config", f"experiments/backbones/{backbone}.yaml"]
    say_missed_gates(parse_experiment(words).config)
    assert capfd.readouterr().out.count("misses 2 of its 4 gates") == lines
