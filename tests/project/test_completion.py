"""Shells complete verbs, flags, their values and an experiment's keys; bash is asked itself."""

import shutil
import subprocess
from contextlib import redirect_stdout
from io import StringIO

import pytest

from experiments.configuration import catalogue
from experiments.configuration.stored_description import keep_schema
from lightning_m2pt.commands import completion
from lightning_m2pt.commands.completion_scripts import SCRIPTS, Context
from lightning_m2pt.commands.verbs import VERBS, needs_checkout
from lightning_m2pt.main import main

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")

ASK = """
source "$1"; shift
COMP_WORDS=(m2pt "$@"); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_m2pt
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        keep_schema.cache_clear()
        path = tmp_path_factory.mktemp("completion") / "m2pt.bash"
        path.write_text(written("bash"))
        yield path
        keep_schema.cache_clear()


def written(shell: str) -> str:
    with redirect_stdout(StringIO()) as shown:
        assert main(["completion", shell]) == 0
    return shown.getvalue()


def completed(script, *words: str) -> list[str]:
    answer = subprocess.run(
        ["bash", "--norc", "-c", ASK, "bash", str(script), *words], capture_output=True, text=True, check=True
    )
    assert answer.stderr == ""
    return answer.stdout.split()


def test_verbs(script):
    assert completed(script, "") == list(VERBS)
    assert completed(script, "rep") == ["report", "report-page"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "--fo"], ["--force"]),
        (["train", "--model.method.visual_len"], ["--model.method.visual_length"]),
        (["fit", "--trainer.max_st"], ["--trainer.max_steps"]),
        (["fit", "--save"], ["--save_every_n_steps"]),
        (["evaluate", "--answer", "l"], ["likelihood_sum", "likelihood_mean", "likelihood_pmi"]),
        (["params", "--model.schedule.name", "co"], ["cosine", "constant_with_warmup"]),
        (["params", "--model.method.interaction", ""], ["true", "false"]),
        (["fit", "--model.method", "lightning_m2pt.methods.m"], ["lightning_m2pt.methods.m2pt.M2PT"]),
        (["fit", "--benchmarks+", "data_modules.v"], ["data_modules.vision_flan_held_out.VisionFlanHeldOut",
                                                       "data_modules.vsr.VSR"]),
        (["train", "--config", "experiments/m2pt_b"], ["experiments/m2pt_base.yaml"]),
        (["data", "sh"], ["show"]),
        (["data", "fetch", "vs"], ["vsr"]),
        (["data", "fetch", "--trainer"], []),
        (["sweep", "run", "--no"], ["--no-search"]),
        (["score", "--ag"], ["--against"]),
        (["score", "--model"], []),
        (["report", "--format", "la"], ["latex"]),
        (["nonsense", "--fo"], []),
    ],
    ids=lambda value: " ".join(value),
)  # fmt: skip
def test_bash_completes(script, words, expected):
    assert completed(script, *words) == expected


def test_every_experiment_is_offered(script):
    offered = completed(script, "check", "--config", "")
    assert offered == [f"experiments/{entry.name}.yaml" for entry in catalogue.experiments()]


def test_the_other_shells_get_the_same_words(script):
    assert written("zsh").endswith(script.read_text())
    lines = written("fish").splitlines()
    assert all(line.startswith(("complete -c m2pt -n ", "#")) for line in lines)
    assert "complete -c m2pt -n '__fish_seen_subcommand_from train' -l force" in lines
    methods = [line for line in lines if "from fit' -l model.method -x" in line]
    assert len(methods) == 1
    assert "lightning_m2pt.methods.m2pt.M2PT" in methods[0]


def test_fish_is_told_what_stands_where():
    contexts = [
        Context("data", ("fetch", "show"), {"-h": (), "--x": ("a", "b")}),
        Context("data fetch", (), {"-q": ()}),
    ]
    assert SCRIPTS["fish"]({"data": "fetches it"}, contexts).splitlines()[1:] == [
        "complete -c m2pt -n __fish_use_subcommand -f -a data -d 'fetches it'",
        "complete -c m2pt -n '__fish_seen_subcommand_from data' -f -a 'fetch show'",
        "complete -c m2pt -n '__fish_seen_subcommand_from data' -s h",
        "complete -c m2pt -n '__fish_seen_subcommand_from data' -l x -x -a 'a b'",
        "complete -c m2pt -n '__fish_seen_subcommand_from data; and __fish_seen_subcommand_from fetch' -s q",
    ]


def test_without_a_checkout_the_librarys_verbs_are_completed(monkeypatch):
    monkeypatch.setattr(completion, "find_checkout", lambda: None)
    names = {context.name.split()[0] for context in completion.contexts()}
    assert names == {verb for verb in VERBS if not needs_checkout(verb)}


def test_another_shell_is_refused(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "fish" in capsys.readouterr().err


ODD = ["experiments/$(touch ran).yaml", "`touch ran`", "(touch ran)", "it's", "~root"]
"""Names that files may have, and that shells expand inside the lists they complete from."""


def test_a_files_name_runs_nothing(tmp_path):
    path = tmp_path / "m2pt.bash"
    context = Context("train", ("plain", *ODD), {"--config": [*ODD, "experiments/plain.yaml"], "--x": ODD})
    path.write_text(SCRIPTS["bash"]({"train": "trains"}, [context]))
    words = {
        flags: subprocess.run(
            ["bash", "-c", ASK, "bash", path, *flags], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.split()
        for flags in (("train", ""), ("train", "--config", ""), ("train", "--x", ""))
    }
    assert list(words.values()) == [["plain", "--config", "--x"], ["experiments/plain.yaml"], []]
    assert [found.name for found in tmp_path.iterdir()] == ["m2pt.bash"]


def test_fish_is_given_no_such_name_either():
    context = Context("train", ("plain", *ODD), {"--config": [*ODD, "experiments/plain.yaml"]})
    lines = SCRIPTS["fish"]({"train": "trains"}, [context]).splitlines()
    assert [line.rpartition(" -a ")[2] for line in lines[2:]] == ["plain", "experiments/plain.yaml"]
