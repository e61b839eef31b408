"""``m2pt list`` names what is there, from the files themselves, and imports nothing heavy for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.commands.parsers.list import KINDS
from lightning_m2pt.main import main
from lightning_m2pt.metrics.rules import RULES

ROOT = Path(__file__).parents[2]


def listed(capfd: pytest.CaptureFixture[str], kind: str) -> dict[str, str]:
    assert main(["list", kind]) == 0
    rows = [line.partition(" ") for line in capfd.readouterr().out.splitlines()]
    return {name: about.strip() for name, _, about in rows}


@pytest.mark.parametrize(
    ("kind", "name", "about"),
    [
        ("experiments", "m2pt_base", "M2PT on the embedded backbone and the testbed: the whole protocol"),
        ("methods", "lightning_m2pt.methods.frozen.Frozen", "Trains nothing; evaluating it evaluates the backbone"),
        ("sets", "data_modules.mnist.MNIST", "One split of MNIST."),
        ("backbones", "lightning_m2pt.backbones.open_clip_llama.OpenClipLlama", "open_clip tower + linear projector"),
        ("backbones", "testbed_patch12", "The second embedded backbone"),
        ("rules", "pope_lmms", "lmms-eval's POPE: exactly yes or no"),
        ("sweeps", "ablation", "The paper's Figure 4"),
    ],
)
def test_a_kind_is_listed_with_a_line_each(capfd, kind, name, about):
    found = listed(capfd, kind)
    assert found[name].startswith(about)
    assert all(found.values())


def test_nothing_is_left_out_and_parts_are_no_experiments(capfd):
    assert list(listed(capfd, "experiments")) == sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))
    assert list(listed(capfd, "rules")) == list(RULES)


def test_runs_are_listed_with_where_they_stand(capfd, tmp_path):
    for name, record in (
        (
            "a/complete",
            {"made_with": [{"started": "today"}], "deciding": {"seed": 3}, "completed": {"optimizer_steps": 60}},
        ),
        ("a/stopped", {"made_with": [{}], "deciding": {}}),
        ("b/damaged", "none"),
        ("sweeps/no_run", {"tasks": []}),
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    assert main(["list", "runs", "--output_root", str(tmp_path)]) == 0
    rows = [line.split(maxsplit=1) for line in capfd.readouterr().out.splitlines()]
    assert {Path(name).relative_to(tmp_path).as_posix(): about for name, about in rows} == {
        "a/complete": "complete, 60 steps, seed 3, last started today",
        "a/stopped": "not complete: the same command goes on",
        "b/damaged": "its record is damaged: not a JSON object",
    }
    assert main(["list", "runs", "--output_root", str(tmp_path / "a" / "complete")]) == 0
    assert "no run in" in capfd.readouterr().err
    for words in (["runs", "--output_root", str(tmp_path / "nowhere")], ["rules", "--output_root", str(tmp_path)]):
        assert main(["list", *words]) == 2
        assert len(capfd.readouterr().err.splitlines()) <= 3


def test_another_kind_is_refused(capfd):
    assert main(["list", "experimnts"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) <= 3
    assert "experiments" in lines[0]


def test_listing_imports_no_torch_from_any_folder(tmp_path):
    code = (
        "import json, sys\nfrom lightning_m2pt.main import main\n"
        f"codes = [main(['list', kind]) for kind in {KINDS!r}]\n"
        "print(json.dumps([codes, sorted({'torch', 'lightning', 'transformers'} & set(sys.modules))]))"
    )
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(child.stdout.splitlines()[-1]) == [[0] * len(KINDS), []]
