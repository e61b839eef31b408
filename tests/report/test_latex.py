"""Every LaTeX table that is written can be compiled, whatever stands in it."""

import pytest

from lightning_m2pt.commands.report_page import write_pieces
from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.report.page.figures import ReportFigure
from lightning_m2pt.report.page.material import read_material
from lightning_m2pt.report.page.parts import parts_of
from lightning_m2pt.report.page.variants import lead_of
from lightning_m2pt.report.tables.formats import Column, ReportTable, latex
from tests.report.test_page_pieces import HOSTILE, hostile_outputs
from tests.support.answers.report_folders import write_everything
from tests.support.strict_latex import check_document

TEXTS = [
    HOSTILE,
    "".join(map(chr, range(32, 127))),
    "".join(map(chr, range(0x00, 0x180))),
    "[1.5, 2.5]",
    "*",
    "\\\\[2cm]",
    "$a & b$",
    "-1.5 ± 0.2 †",
    "“quoted” \N{EN DASH} it\N{RIGHT SINGLE QUOTATION MARK}s 3 \N{MULTIPLICATION SIGN} 4 …",
    "中文 Привет λ ≥ → 🙂 \u0301",
    "a\nb\r\nc\td",
    "",
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_any_text_compiles_in_any_place(text):
    columns = [Column(text), Column(text, is_number=True), Column("plain")]
    table = ReportTable(text, columns, [(text, text, ""), ("", text, text)], [], [text], frozenset({(0, 0), (1, 1)}))
    assert check_document(latex([table, table])) == 6


def test_a_sign_that_the_fonts_lack_is_named_by_its_number():
    table = ReportTable("", [Column("a")], [("é中",), ("[x]",), ("3 \N{MULTIPLICATION SIGN} 4…",)], [])
    assert latex([table]).splitlines()[4:7] == [r"é\texttt{U+4E2D} \\", r"{}[x] \\", r"3 $\times$ 4\ldots{} \\"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pieces of the report of a whole comparison, and of one in which every text is hostile; nothing is drawn."""
    folders = [
        write_everything(tmp_path_factory.mktemp("whole"), ("lora",)),
        hostile_outputs(tmp_path_factory.mktemp("hostile")),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReportFigure, "images", {})
        for outputs in folders:
            material = read_material([outputs])
            for comparison in material.comparisons:
                lead = lead_of(comparison.groups, material.sweeps)
                parts, _ = parts_of(comparison, lead, material.sweeps, [outputs.parent], 2)
                write_pieces([part for part in parts if not part.missing], outputs / "report" / comparison.name)
    return folders


def test_every_table_of_the_report_compiles(pages):
    whole, hostile = ({path.stem: path for path in root.glob("report/*/*.tex")} for root in pages)
    assert {"methods", "cost", "cases", "rates", "ablation-table"} <= set(whole)
    assert {"methods", "cost", "cases"} <= set(hostile)
    for path in (*whole.values(), *hostile.values()):
        text = path.read_text(encoding="utf-8")
        assert text.count(r"\begin{tabular}") >= 1
        assert check_document(text) >= 2, path


@pytest.mark.parametrize("more", [[], ["--details"]], ids=["sets", "details"])
def test_every_table_of_m2pt_report_compiles(pages, tmp_path, more):
    for outputs in pages:
        target = tmp_path / "scores.tex"
        words = ["report", str(outputs), "--format", "latex", "--output", str(target), *more]
        assert main(words) == ExitCode.DONE
        assert check_document(target.read_text(encoding="utf-8")) >= 2
        target.unlink()


@pytest.mark.parametrize(
    "broken",
    [
        "\\begin{tabular}{ll}\na & b & c \\\\\n\\end{tabular}",
        "\\begin{tabular}{ll}\na & b \\\\\n",
        "\\begin{tabular}{l}\n[x] \\\\\n\\end{tabular}",
        "\\begin{tabular}{l}\na_b \\\\\n\\end{tabular}",
        "\\begin{tabular}{l}\n50% \\\\\n\\end{tabular}",
        "\\begin{tabular}{l}\n{a \\\\\n\\end{tabular}",
        "\\begin{tabular}{l}\n$a \\\\\n\\end{tabular}",
        "\\begin{tabular}{l}\n\\pm \\\\\n\\end{tabular}",
        "\\begin{tabular}{l}\n\\input{x} \\\\\n\\end{tabular}",
        "\\begin{tabular}{l}\n中 \\\\\n\\end{tabular}",
        "\\begin{tabular}{l}\na\n\\end{tabular}",
        "a & b",
    ],
)
def test_the_reader_is_strict(broken):
    with pytest.raises(AssertionError):
        check_document(broken)
