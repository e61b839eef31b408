r"""A strict reader of the LaTeX that tables are written in: it accepts what compiles with ``booktabs``, hardly more."""

import re

COMMANDS = {
    *("begin", "end", "toprule", "midrule", "bottomrule", "textbf", "texttt", "footnotesize", "par"),
    *("textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar"),
    *("pm", "dag", "times", "cdot", "ldots"),
}
MATHEMATICS = {"pm", "times", "cdot"}
TOKEN = re.compile(r"\\(?:[a-zA-Z]+|.)|.", re.S)
CELL_SIGNS = "&$#%_{}"
"""May stand in text behind a backslash."""
KNOWN_LETTERS = re.compile(r"[\x20-\x7eÀ-ÖØ-öø-ÿ\n]*")
WITHOUT_A_GLYPH = "ÐÞðþ"


def check_document(text: str) -> int:
    """Asserts that a piece of LaTeX can be compiled; returns how many rows its tables have."""
    assert KNOWN_LETTERS.fullmatch(text), KNOWN_LETTERS.sub("", text)[:40]
    assert not set(text) & set(WITHOUT_A_GLYPH)
    columns, rows, before = 0, 0, ""
    for line in text.splitlines():
        if line.startswith("%"):
            continue
        if begun := re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", line):
            assert not columns, "tables inside each other"
            columns = len(begun[1])
        elif line == r"\end{tabular}":
            assert columns, "no table to end"
            columns = 0
        elif line in (r"\toprule", r"\midrule", r"\bottomrule"):
            assert columns
        elif columns:
            assert not line.startswith(("[", "*")), f"{before} takes this for its argument: {line}"
            assert line.endswith(r" \\")
            assert check_text(line[:-3]) == columns - 1, line
            rows += 1
        else:
            assert check_text(line) == 0, line
        before = line
    assert not columns, "a table does not end"
    return rows


def check_text(line: str) -> int:
    """Asserts that one line of text holds balanced groups and no bare sign; returns how many cells it parts."""
    parted, depth, in_mathematics = 0, 0, False
    for token in TOKEN.findall(line):
        if token.startswith("\\") and token[1:].isalpha():
            assert token[1:] in COMMANDS, token
            assert not in_mathematics or token[1:] in MATHEMATICS, token
            assert in_mathematics or token[1:] not in MATHEMATICS, token
        elif token.startswith("\\"):
            assert token[1:] in CELL_SIGNS, token
            assert token[1:] != ""
        elif token == "{":
            depth += 1
        elif token == "}":
            depth -= 1
            assert depth >= 0, line
        elif token == "$":
            in_mathematics = not in_mathematics
        elif token == "&":
            assert depth == 0, "a cell ends inside a group"
            assert not in_mathematics, "a cell ends inside mathematics"
            parted += 1
        else:
            assert token not in "#%_^~", f"bare {token} in {line}"
    assert depth == 0, line
    assert not in_mathematics, line
    return parted
