"""`m2pt report` and `m2pt compare` on invented folders of evaluated runs."""

import csv
import io
import json
import subprocess
import sys

import pytest

from lightning_m2pt.errors import ExitCode
from lightning_m2pt.metrics.means import MMAVG_MEMBERS
from lightning_m2pt.metrics.predictions import read_predictions
from lightning_m2pt.metrics.score import score
from lightning_m2pt.report.tables.frozen_and_tuned import comparison_table
from lightning_m2pt.report.tables.outcome import gains_of
from lightning_m2pt.runs.evaluated import grouped, read_run
from tests.support.answers.evaluated_folders import (
    mnist_questions,
    vsr_questions,
    write_outputs,
    write_predictions,
    write_run,
)
from tests.support.answers.report_verbs import records, refused, run
from tests.support.small_experiment import fitted, small_words

SETS = ("mme", "vsr", "pope", "mnist")
MEAN = "mean of vsr, pope, mnist"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return write_outputs(tmp_path_factory.mktemp("report"))


def test_seeds_of_one_experiment_are_one_row(capfd, outputs):
    found = records(capfd, "report", outputs)
    assert [row["set"] for row in found] == [name for name in (*SETS, MEAN) for _ in range(3)][:15]
    assert [(row["run"], row["seeds"]) for row in found[:3]] == [("frozen", 1), ("m2pt_base", 3), ("projector", 1)]
    values = [read_run(outputs / "m2pt_base" / f"m2pt-seed{seed}").sets["vsr"].score.value for seed in range(3)]
    row = found[4]
    mean = sum(values) / 3
    assert row["percent"] == pytest.approx(mean)
    assert row["percent_deviation_over_seeds"] == pytest.approx((sum((v - mean) ** 2 for v in values) / 2) ** 0.5)
    assert row["percent_low"] < row["percent"] < row["percent_high"]
    assert (row["n"], row["unparsed"], row["rule"]) == (200, 0, "yes_no_words")
    assert (row["template"], row["data_revision"]) == ("vicuna_v1", "a" * 64)
    sets_of_group = {row["set"]: row["percent"] for row in found if row["run"] == "m2pt_base"}
    assert sets_of_group[MEAN] == pytest.approx(sum(sets_of_group[name] for name in ("vsr", "pope", "mnist")) / 3)


def test_one_run_alone_is_read_as_one_run(capfd, outputs):
    found = records(capfd, "report", outputs / "m2pt_base" / "m2pt-seed1", "--sets", "vsr", "mme")
    assert [(row["set"], row["seeds"]) for row in found] == [("mme", 1), ("vsr", 1)]
    assert found[0]["headline"] == "MME[2 of 14]"
    assert (found[0]["maximum"], found[0]["score"]) == (400, pytest.approx(4 * found[0]["percent"]))


def test_other_evaluations_of_a_run_are_rows_of_their_own(capfd, tmp_path):
    home = tmp_path / "m2pt_base" / "m2pt-seed0"
    write_run(home, 0, ["testbed+color"])
    for folder in (home, home / "evaluations" / "without-visual_prompts-12345678"):
        write_predictions(folder, "vsr", vsr_questions(40), 0.8)
    found = records(capfd, "report", home, home / "evaluations")
    assert [row["run"] for row in found] == ["m2pt_base", "m2pt_base, without-visual_prompts-12345678"]
    assert [row["shared_with_tuning"] for row in found] == ["", ""]


def test_shown_examples_are_counted_and_no_zero_shot(capfd, tmp_path):
    home = tmp_path / "m2pt_base" / "m2pt-seed0"
    write_run(home, 0, ["testbed+color"])
    shown = home / "evaluations" / "2-shot-12345678"
    write_predictions(home, "vsr", vsr_questions(40), 0.8)
    write_predictions(shown, "vsr", vsr_questions(40), 0.8, examples={"shots": 2, "sha256": "c" * 64})
    assert [row["shots"] for row in records(capfd, "report", home, shown)] == [0, 2]
    for verb in ("report", "compare"):
        text = " ".join(run(capfd, verb, home, shown)[1].split())
        assert "the number of worked examples differs: 0 (m2pt_base), 2 (m2pt_base, 2-shot-12345678)" in text
        assert "zero-shot: m2pt_base: tuned on" in text
        assert "2-shot: m2pt_base, 2-shot-12345678: tuned on" in text
    _, text = run(capfd, "report", shown)
    assert "zero-shot" not in text
    assert "shots 2" in text


def test_candidate_answers_are_counted_and_not_listed(capfd, tmp_path):
    candidates = {str(number): 2 for number in range(100)}
    decoding = {"method": "likelihood_sum", "candidate_tokens": candidates, "dtype": "float32"}
    write_predictions(tmp_path / "run", "vsr", vsr_questions(40), 0.8, decoding=decoding)
    _, text = run(capfd, "report", tmp_path / "run")
    assert "decoding likelihood_sum, 100 candidates, float32" in text
    (row,) = records(capfd, "report", tmp_path / "run")
    assert row["decoding"] == decoding


def test_runs_that_differ_in_more_than_the_seed_are_kept_apart(tmp_path):
    for seed, template in ((0, "vicuna_v1"), (1, "vicuna_v1"), (2, "plain")):
        folder = tmp_path / "m2pt_base" / f"m2pt-seed{seed}"
        write_run(folder, seed)
        write_predictions(folder, "vsr", vsr_questions(20), 0.8, template=template)
    groups = grouped([read_run(folder) for folder in sorted((tmp_path / "m2pt_base").iterdir())])
    assert [len(group.runs) for group in groups] == [2, 1]
    assert [group.name for group in groups] == ["m2pt_base/m2pt-seed0", "m2pt_base/m2pt-seed2"]


@pytest.mark.parametrize("other", [("m2pt_base", {"steps": 9}), ("projector", {})])
def test_other_knobs_or_another_experiment_make_another_group(tmp_path, other):
    folders = []
    for (name, knobs), seed in ((("m2pt_base", {}), 0), (other, 1)):
        folders.append(tmp_path / name / f"seed{seed}")
        write_run(folders[-1], seed)
        (folders[-1] / "run.json").write_text(json.dumps({"deciding": {"seed": seed, "steps": 7, **knobs}}))
        write_predictions(folders[-1], "vsr", vsr_questions(20), 0.8, seed)
    assert [len(group.runs) for group in grouped([read_run(folder) for folder in folders])] == [1, 1]


def test_a_run_that_was_stopped_before_its_last_step_is_no_seed_of_complete_ones(tmp_path):
    for seed in (0, 1, 2):
        run = tmp_path / "m2pt" / f"seed{seed}"
        write_run(run, seed)
        record = json.loads((run / "run.json").read_text()) | {"made_with": [{}]}
        if seed != 1:
            record["completed"] = {"optimizer_steps": 400, "seconds": 1.0}
        (run / "run.json").write_text(json.dumps(record))
        write_predictions(run, "vsr", vsr_questions(20), 0.8, adapter=str(seed))
    groups = grouped([read_run(run) for run in sorted((tmp_path / "m2pt").iterdir())])
    assert [(group.name, len(group.runs)) for group in groups] == [("m2pt", 2), ("m2pt, unfinished", 1)]


def test_the_mean_row_is_of_the_seeds_that_answered_all_sets(capfd, tmp_path):
    for seed, sets in ((0, ("vsr", "mnist")), (1, ("vsr",))):
        write_run(tmp_path / "tuned" / f"seed{seed}", seed)
        for name in sets:
            rows = vsr_questions(40) if name == "vsr" else mnist_questions(40)
            write_predictions(tmp_path / "tuned" / f"seed{seed}", name, rows, 0.9 - 0.4 * seed, seed)
            write_predictions(tmp_path / "frozen" / "run", name, rows, 0.4, 7, adapter=None)
    *_, mean = records(capfd, "report", tmp_path / "tuned", "--against", tmp_path / "frozen")
    assert (mean["set"], mean["seeds"]) == ("mean of vsr, mnist", 1)
    assert mean["difference"] == pytest.approx(mean["percent"] - mean["baseline_percent"])
    assert mean["percent_low"] <= mean["percent"] <= mean["percent_high"]


def test_runs_of_one_name_in_two_places_have_names_of_their_own(capfd, tmp_path, monkeypatch):
    for place, template in (("here", "vicuna_v1"), ("there", "plain")):
        folder = tmp_path / place / "m2pt_base" / "m2pt-seed0"
        write_run(folder, 0)
        write_predictions(folder, "vsr", vsr_questions(20), 0.8, template=template)
    code, text = run(capfd, "report", tmp_path / "here", tmp_path / "there", "--format", "csv")
    assert code == ExitCode.DONE
    assert [row["run"] for row in csv.DictReader(io.StringIO(text))] == [
        str(tmp_path / place / "m2pt_base" / "m2pt-seed0") for place in ("here", "there")
    ]
    _, text = run(capfd, "report", tmp_path, "--format", "markdown")
    assert "vsr is not the same measurement in all rows, the template differs" in text
    monkeypatch.chdir(tmp_path / "here" / "m2pt_base" / "m2pt-seed0")
    found = records(capfd, "report", ".", tmp_path / "here", "../m2pt-seed0")
    assert [row["run"] for row in found] == ["m2pt_base"]


def test_an_evaluation_belongs_to_its_run_from_wherever_it_is_named(capfd, tmp_path, monkeypatch):
    home = tmp_path / "m2pt_base" / "m2pt-seed0"
    write_run(home, 0, ["MNIST-M+number_recognition"])
    write_predictions(home / "evaluations" / "2-shot-12345678", "mnist", mnist_questions(20), 0.8)
    monkeypatch.chdir(home / "evaluations" / "2-shot-12345678")
    (found,) = records(capfd, "report", ".")
    assert found["run"] == "m2pt_base, 2-shot-12345678"
    assert found["shared_with_tuning"].startswith("MNIST-M+number_recognition: MNIST's digits")


def test_predictions_under_the_name_of_another_set_are_refused(capfd, outputs, tmp_path):
    folder = tmp_path / "run" / "predictions"
    folder.mkdir(parents=True)
    (folder / "pope.jsonl").write_bytes((outputs / "frozen/0123abcd/predictions/mme.jsonl").read_bytes())
    assert "pope.jsonl: these are predictions of 'mme'" in refused(capfd, "report", tmp_path / "run")


@pytest.mark.parametrize("text", ["[" * 5000, "a: &a [1]\nb: *a\n", "no keys"])
def test_a_configuration_that_is_none_is_refused(capfd, tmp_path, text):
    found = write_outputs(tmp_path)
    (found / "projector" / "projector-seed0" / "config.yaml").write_text(text)
    assert "projector-seed0/config.yaml" in refused(capfd, "report", found)


def test_seeds_that_answered_different_questions_are_refused_whichever_comes_first(capfd, tmp_path):
    for name, numbers in (("falls", (30, 20)), ("rises", (20, 30))):
        for seed, several in enumerate(numbers):
            write_run(tmp_path / name / f"seed{seed}", seed)
            write_predictions(tmp_path / name / f"seed{seed}", "vsr", vsr_questions(several), 0.8)
        assert "'vsr/20'" in refused(capfd, "report", tmp_path / name)


def test_runs_that_were_really_tuned_with_two_seeds_are_one_group(tmp_path):
    runs = []
    for seed in (1, 0):
        _, folder = fitted([*small_words(tmp_path, steps=1), "--seed_everything", str(seed)])
        write_predictions(folder, "vsr", vsr_questions(20), 0.8, seed)
        runs.append(read_run(folder))
    (group,) = grouped(runs)
    assert (group.name, [run.seed for run in group.runs]) == ("m2pt_base", [0, 1])


def test_the_published_mean_has_its_name_only_with_all_its_members(capfd, tmp_path):
    for name in MMAVG_MEMBERS[1:]:
        write_predictions(tmp_path / "run", name, vsr_questions(20), 0.8, default_rule="yes_no_words")
    *_, last = records(capfd, "report", tmp_path / "run")
    assert last["set"].startswith("mean of vsr, snli_ve, pope")
    write_predictions(tmp_path / "run", "text_vqa", vsr_questions(20), 0.4)
    write_predictions(tmp_path / "run", "another", vsr_questions(20), 0.1)
    found = records(capfd, "report", tmp_path / "run")
    assert found[-1]["set"] == "MMAvg"
    members = [row["percent"] for row in found[:-1] if row["set"] in MMAVG_MEMBERS]
    assert found[-1]["percent"] == pytest.approx(sum(members) / 7)
    _, text = run(capfd, "report", tmp_path / "run")
    assert "MMAvg: the published mean's seven members under the rules above" in text


def test_the_mean_with_f1_in_it_is_not_the_published_one(capfd, tmp_path):
    for name in MMAVG_MEMBERS:
        write_predictions(tmp_path / "run", name, vsr_questions(20), 0.8, default_rule="yes_no_words")
    *_, last = records(capfd, "report", tmp_path / "run", "--rule", "pope=pope_vlmevalkit")
    assert last["set"] == "mean of vsr, snli_ve, pope (POPE F1), cifar10, cifar100, mnist, text_vqa"
    assert records(capfd, "report", tmp_path / "run", "--rule", "pope=pope_official")[-1]["set"] == "MMAvg"


def test_the_baseline_is_not_compared_with_itself_and_what_it_was_asked_otherwise_is_said(capfd, outputs, tmp_path):
    found = records(capfd, "report", outputs, "--against", outputs / "frozen", "--sets", "vsr")
    assert [(row["run"], row["difference"] is None) for row in found] == [
        ("frozen", True),
        ("m2pt_base", False),
        ("projector", False),
    ]
    for place, template in (("a", "vicuna_v1"), ("b", "plain")):
        write_predictions(tmp_path / place / "m2pt" / "run", "vsr", vsr_questions(20), 0.8, template=template)
    _, text = run(capfd, "report", tmp_path / "a", "--against", tmp_path / "b", "--format", "json")
    (note,) = [note for note in json.loads(text)["tables"][0]["notes"] if "not the same measurement" in note]
    assert note.endswith(f"the template differs: vicuna_v1 (m2pt), plain ({tmp_path / 'b'})")


def test_a_gain_inside_the_noise_is_marked(capfd, outputs):
    words = ("report", outputs / "m2pt_base", outputs / "projector", "--against", outputs / "frozen")
    code, text = run(capfd, *words)
    assert code == ExitCode.DONE
    assert "~ inside the noise: the paired 95% interval of the difference contains 0" in text
    found = records(capfd, *words)
    marked = {(row["run"], row["set"]): row["inside_the_noise"] for row in found}
    assert {key for key, is_noise in marked.items() if is_noise} == {("projector", name) for name in (*SETS, MEAN)}
    for row in found:
        inside = row["difference_low"] <= 0 <= row["difference_high"]
        assert row["inside_the_noise"] == inside
        line = next(line for line in text.splitlines() if line.strip().startswith(row["set"]) and row["run"] in line)
        assert (" ~" in line) == inside
        assert row["difference"] == pytest.approx(row["percent"] - row["baseline_percent"])


def test_every_table_names_what_its_scores_depend_on(capfd, outputs):
    _, text = run(capfd, "report", outputs / "frozen" / "0123abcd")
    assert "all rows: template vicuna_v1; decoding greedy, 8 tokens, float32; shots 0; data aaaaaaaa" in text
    assert "zero-shot" not in text
    _, text = run(capfd, "report", outputs / "m2pt_base", "--format", "markdown")
    assert text.splitlines()[0] == (
        "| set | seeds | score | 95% interval | n | unparsed | yes said | rule | template | decoding | shots | data |"
    )
    assert "zero-shot: m2pt\\_base: tuned on synthetic tasks of the testbed (2)" in text


def test_details_have_mme_by_subtask_and_pope_by_split(capfd, outputs):
    code, text = run(capfd, "report", outputs / "m2pt_base" / "m2pt-seed0", "--details", "--format", "json")
    assert code == ExitCode.DONE
    tables = json.loads(text)["tables"]
    parts = [[row["part"] for row in table["records"]] for table in tables[1:]]
    assert parts == [["count", "color", "perception", "total"], ["random", "popular", "adversarial", "overall"]]
    scored = read_run(outputs / "m2pt_base" / "m2pt-seed0").sets
    assert tables[1]["records"][0]["accuracy_plus"] == scored["mme"].score.table["count"]["accuracy_plus"]
    assert tables[2]["records"][3]["f1"] == scored["pope"].score.table["overall"]["f1"]


def test_a_rule_for_one_set_and_a_rule_that_does_not_fit(capfd, outputs):
    folder = outputs / "m2pt_base" / "m2pt-seed0"
    rules = {row["set"]: row["rule"] for row in records(capfd, "report", folder, "--rule", "mme=mme_m2pt")}
    assert (rules["mme"], rules["vsr"]) == ("mme_m2pt", "yes_no_words")
    assert "mnist.jsonl" in refused(capfd, "report", folder, "--rule", "yes_no_words")
    assert "unknown scoring rule ''" in refused(capfd, "report", folder, "--rule", "mme=")
    assert "two rules for mme" in refused(capfd, "report", folder, "--rule", "mme=mme_m2pt", "mme=mme_lmms")
    assert "no predictions of 'gqa'" in refused(capfd, "report", folder, "--sets", "gqa")
    assert "no predictions here" in refused(capfd, "report", outputs / "m2pt_base" / "m2pt-seed0" / "predictions")
    assert "does not exist" in refused(capfd, "report", outputs / "nothing")


def test_csv_and_latex_go_to_a_file(capfd, outputs, tmp_path):
    code, _ = run(capfd, "report", outputs, "--format", "csv", "--output", tmp_path / "new" / "scores.csv")
    assert code == ExitCode.DONE
    rows = list(csv.DictReader(io.StringIO((tmp_path / "new" / "scores.csv").read_text())))
    assert [float(row["percent"]) for row in rows if row["set"] == "vsr"] == [
        row["percent"] for row in records(capfd, "report", outputs) if row["set"] == "vsr"
    ]
    code, _ = run(capfd, "report", outputs, "--format", "latex", "--output", tmp_path / "scores.tex")
    text = (tmp_path / "scores.tex").read_text()
    assert text.startswith("\\begin{tabular}{llrrrrrrlllrl}\n\\toprule\n")
    assert "m2pt\\_base" in text


def test_report_and_compare_need_no_torch(outputs):
    program = (
        "import sys; from lightning_m2pt.main import main; "
        f"code = main(['report', {str(outputs)!r}, '--details', '--against', {str(outputs / 'frozen')!r}]); "
        f"code += main(['compare', {str(outputs / 'projector')!r}, {str(outputs / 'frozen')!r}]); "
        "code += main(['report', 'nowhere', '--against', 'paper']) - 2; "
        "sys.exit(code or sorted({'torch', 'lightning', 'transformers'} & sys.modules.keys()) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_table_of_a_training_run_marks_differences_inside_the_noise(outputs):
    folders = ("frozen/0123abcd", "m2pt_base/m2pt-seed0", "projector/projector-seed0")
    contents = [read_predictions(outputs / folder / "predictions" / "vsr.jsonl") for folder in folders]
    frozen, tuned, projector = (
        {"vsr": score(content.header, content.predictions, "yes_no_words")} for content in contents
    )
    answered = {"vsr": contents[0]}
    gains, noise = (gains_of(frozen, other, answered) for other in (tuned, projector))
    assert "~" not in str(list(comparison_table(frozen, tuned, "m2pt", gains).columns[3].cells))
    noisy = comparison_table(frozen, projector, "projector", noise)
    assert [cell.endswith(" ~") for cell in noisy.columns[3].cells] == [True] * 3
    assert "inside the noise" in noisy.caption
    assert "~" not in str(list(comparison_table(frozen, projector, "projector").columns[3].cells))
