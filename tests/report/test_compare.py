"""`m2pt compare` on invented folders of evaluated runs."""

import pytest

from lightning_m2pt.errors import ExitCode
from lightning_m2pt.main import main
from tests.support.answers.evaluated_folders import mme_questions, vsr_questions, write_outputs, write_predictions
from tests.support.answers.report_verbs import records, refused, run


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return write_outputs(tmp_path_factory.mktemp("compare"))


def test_compare_says_better_worse_or_inside_the_noise(capfd, outputs):
    seed = outputs / "m2pt_base" / "m2pt-seed0"
    for first, second, expected in (
        (outputs / "frozen", seed, "better"),
        (seed, outputs / "frozen", "worse"),
        (outputs / "frozen", outputs / "projector", "inside the noise"),
    ):
        found = records(capfd, "compare", first, second)
        assert [row["verdict"] for row in found] == [expected] * 4
        assert all((row["mcnemar_p"] < 0.05) == (expected != "inside the noise") for row in found)
    assert all(row["mcnemar_p"] is None for row in records(capfd, "compare", outputs / "frozen", outputs / "m2pt_base"))
    itself = records(capfd, "compare", seed, seed, "--sets", "vsr")
    assert [(row["difference"], row["mcnemar_p"]) for row in itself] == [(0, 1)]


def test_compare_says_below_the_table_which_folders_with_long_names_are_meant(capfd, outputs):
    seed = next(path for path in sorted((outputs / "m2pt_base").iterdir()) if path.is_dir())
    assert main(["compare", str(seed), str(seed), "--sets", "vsr"]) == 0
    lines = capfd.readouterr().out.splitlines()
    title = next(line for line in lines if "difference" in line)
    assert (title.split()[:4], len(title) < 100) == (["set", "first", "second", "difference"], True)
    assert f"first:{seed}second:{seed}" in "".join(line.strip() for line in lines).replace(" ", "")


def test_compare_refuses_what_cannot_be_compared(capfd, tmp_path):
    for name, several, header in (
        ("a", 20, {}),
        ("fewer", 18, {}),
        ("revised", 20, {"data_revision": "c" * 64}),
        ("read_otherwise", 20, {"default_rule": "pope_official"}),
        ("asked_otherwise", 20, {"template": "plain"}),
    ):
        write_predictions(tmp_path / name / "run", "vsr", vsr_questions(several), 0.8, **header)
    write_predictions(tmp_path / "mme" / "run", "mme", mme_questions({"count": 5}), 0.8)
    first = tmp_path / "a"
    assert "the question 'vsr/18' of a is not among those of fewer" in refused(
        capfd, "compare", first, tmp_path / "fewer"
    )
    text = refused(capfd, "compare", first, tmp_path / "revised")
    assert "data revision of vsr: aaaaaaaa in a, cccccccc in revised" in text
    text = refused(capfd, "compare", first, tmp_path / "read_otherwise")
    assert "scoring rule of vsr: yes_no_words in a, pope_official in read_otherwise" in text
    assert "vsr" in refused(capfd, "report", tmp_path / "revised", "--against", first)
    assert "a answered vsr, mme mme" in refused(capfd, "compare", first, tmp_path / "mme")
    assert "does not exist" in refused(capfd, "compare", first, tmp_path / "nothing")
    assert "6 runs here that differ in more than the seed" in refused(capfd, "compare", first, tmp_path)
    code, text = run(capfd, "compare", first, tmp_path / "asked_otherwise")
    assert code == ExitCode.DONE
    assert "vsr is not the same measurement in all rows, the template differs: vicuna_v1 (a), plain" in text
    code, text = run(capfd, "report", first, tmp_path / "read_otherwise")
    assert "the scoring rule differs: yes_no_words (a), pope_official (read_otherwise)" in text
