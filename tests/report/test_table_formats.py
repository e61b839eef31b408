"""Five forms of one table, on names that would break each of them."""

import csv
import io
import json

import pytest

from lightning_m2pt.report.tables.formats import FORMAT_NAMES, Column, ReportTable, formatted
from lightning_m2pt.system.console import say

NASTY = '=HYPERLINK("http://x") & 50% of a_b {c} #1 $2 ~ ^ \\ | <i>'
TABLE = ReportTable(
    title="a_title",
    columns=(Column("set"), Column("gain", is_number=True), Column("template", is_setting=True)),
    rows=((NASTY, "-0.4 ± 0.1", "plain"), ("mean", "+1.0", "")),
    records=(
        {"set": NASTY, "gain": -0.4000000000000001, "n": 7, "more": {"a": 1}, "none": None},
        {"set": "@mean", "gain": 1.0, "n": 8, "more": [1, 2], "none": None},
    ),
    notes=("a_note, 95%",),
)


def test_markdown_cells_stay_cells():
    lines = formatted([TABLE], "markdown", 80).splitlines()
    assert lines[0] == "### a\\_title"
    assert lines[3] == "| --- | ---: | --- |"
    assert lines[4].endswith("\\\\ \\| &lt;i> | -0.4 ± 0.1 | plain |")
    assert lines[-1] == "a\\_note, 95%"


def test_latex_escapes_its_special_characters():
    text = formatted([TABLE], "latex", 80)
    row = text.splitlines()[5]
    assert row == (
        r'=HYPERLINK("http://x") \& 50\% of a\_b \{c\} \#1 \$2 \textasciitilde{} '
        r"\textasciicircum{} \textbackslash{} \textbar{} \textless{}i\textgreater{} & $-$0.4 $\pm$ 0.1 & plain \\"
    )
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert r"\begin{tabular}{lrl}" in text


def test_no_csv_cell_is_a_formula_and_numbers_stay_numbers():
    text = formatted([TABLE, TABLE], "csv", 80)
    assert text.count("\r\n") == text.count("\n") == 7
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[1] == [f"'{NASTY}", "-0.4000000000000001", "7", '{"a": 1}', ""]
    assert rows[2][0] == "'@mean"
    assert rows[3] == []


def test_json_keeps_all_digits():
    content = json.loads(formatted([TABLE], "json", 80))
    assert content["tables"][0]["records"] == [dict(record) for record in TABLE.records]
    assert content["tables"][0]["notes"] == ["a_note, 95%"]


def test_a_name_with_colons_stays_itself(capfd):
    table = ReportTable("x:b:y", [Column("set")], [("x:b:y",)], [{"set": "x:b:y"}], ["x:b:y"])
    for form in FORMAT_NAMES:
        say(formatted([table], form, 80))
        assert capfd.readouterr().out.count("x:b:y") >= (1 if form == "csv" else 3)


def test_a_terminal_shows_unchanging_settings_below_and_cuts_nothing():
    lines = formatted([TABLE], "terminal", 20).splitlines()
    assert lines[2].split() == ["set", "gain"]
    assert " ".join(lines).split()[-6:] == ["all", "rows:", "template", "plain", "a_note,", "95%"]
    assert "-0.4 ± 0.1" in "\n".join(lines)
    first_column = "".join(line[:25].strip() for line in lines[4:8])
    assert "".join(NASTY.split()) in "".join(first_column.split())
    changing = ReportTable("", TABLE.columns, [*TABLE.rows, ("x", "1", "vicuna_v1")], TABLE.records)
    assert "template" in formatted([changing], "terminal", 80).splitlines()[1]


@pytest.mark.parametrize("form", FORMAT_NAMES)
def test_every_form_ends_with_a_line_end(form):
    assert formatted([TABLE], form, 80).endswith("\n")
