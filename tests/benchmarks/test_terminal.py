"""The figure of a terminal shows what a terminal would: a bar in its last state, and lines that stand above it."""

from benchmarks.report.terminal import Screen, drawn


def test_a_line_that_is_written_again_stands_there_once() -> None:
    screen = Screen()
    screen.feed("begin\r\n\x1b[?25l\r\x1b[2Ktuning 1\r\x1b[2Ktuning \x1b[1m2\x1b[0m")
    assert [row.plain for row in screen.shown()] == ["begin", "tuning 2"]
    screen.feed("\r\x1b[2Ksaid\r\ntuning 3\r\n\x1b[?25h\x1b[1A\x1b[2Kend\r\n" + "x" * 90)
    assert [row.plain for row in screen.shown()] == ["begin", "said", "end", "x" * 80, "x" * 10]
    picture = drawn(screen.shown(), "m2pt fit")
    assert picture.startswith("<svg")
    assert "m2pt" in picture
    assert "said" in picture
