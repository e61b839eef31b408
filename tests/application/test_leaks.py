"""What may not be sent: every form is found, by file and line, and ordinary texts are none of them."""

import getpass
import json
import socket
from pathlib import Path

import pytest

from lightning_m2pt.application.card_licence import licence_of
from lightning_m2pt.application.leaks import leaks, refuse_leaks
from lightning_m2pt.application.private_sets import private_set_names
from lightning_m2pt.application.publishing import Publication
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import main
from lightning_m2pt.storage.adapter_manifest import manifest_of
from tests.support.hub.pushed_adapter import CARD, write_run

ORDINARY = """---
license: mit
tags: [prompt-tuning]
---
Base: lightning_m2pt/embedded/testbed, hub:some-org/model-7b at https://huggingface.co/some-org/model-7b/tree/main
1/2 of the rows; m2pt evaluate --run outputs/m2pt_base/0a1b2c3d --data data/testbed/vsr; and/or; sha256:0123abcd
https://example.org/home/page.html and docs/data/index.md; task-root; lr 1e-3/20; risk-averse; ~5%; hf_hub; a:b@c
"Q:\\nWhat?\\nA:\\n{question}..\\nok" \\| x \\\\ y; https://home/x; ftp://data/set
"""


def found(text: str, sets: tuple[str, ...] = (), allowed: tuple[str, ...] = ()) -> list[tuple[int, str]]:
    return [(leak.line, leak.what) for leak in leaks({"README.md": text}, sets, allowed)]


@pytest.fixture(autouse=True)
def somebody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The names and places of this machine are known ones, whoever runs the tests."""
    monkeypatch.setattr(getpass, "getuser", lambda: "ruthmeier")
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu17.lab.example")
    monkeypatch.setenv("HOME", str(tmp_path / "people" / "rm"))
    monkeypatch.setenv("M2PT_MODELS", "/shelf/models")
    monkeypatch.setenv("M2PT_DATA", "/shelf/sets")
    (tmp_path / "checkout").mkdir()
    monkeypatch.chdir(tmp_path / "checkout")


def test_ordinary_texts_are_no_leak() -> None:
    assert found(ORDINARY + CARD) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("hf_" + "aB3" * 12, "Hugging Face"),
        ("AKIA" + "ABCDEFGH12345678", "AWS"),
        ("ghp_" + "a1" * 18, "GitHub"),
        ("github_pat_" + "a1_" * 20, "GitHub"),
        ("glpat-" + "a1-" * 7, "GitLab"),
        ("xoxb-1234567890-abc", "Slack"),
        ("AIza" + "aB_-5" * 7, "Google"),
        ("sk-" + "a1B2" * 8, "OpenAI"),
        ("sk-proj-" + "a1B2" * 8, "OpenAI"),
        ("eyJ" + "aB3" * 8 + ".eyJ" + "aB3" * 8 + ".a1_-", "signed token"),
        ("-----BEGIN RSA PRIVATE KEY-----", "private key"),
        ("https://me:secret@example.org/x", "password"),
        ("/home/anna/models/x", "path of a machine"),
        ("/scratch/project/x.json", "path of a machine"),
        ('"C:\\\\Users\\\\Anna\\\\x"', "path of a machine"),
        ("C:\\Users\\Anna\\x", "path of a machine"),
        ("C:/Users/Anna/x", "path of a machine"),
        ("d:\\users\\x", "path of a machine"),
        ('"D:\\\\new\\\\x"', "path of a machine"),
        ("\\\\nas\\anna\\x", "path of a machine"),
        ('"\\\\\\\\nas\\\\anna"', "path of a machine"),
        ("file:///elsewhere/anna/x", "path of a machine"),
        ("gpu18:/home/anna/x", "path of a machine"),
        ("/users/anna/x", "path of a machine"),
        ("/content/drive/x", "path of a machine"),
        ("/Volumes/Disk/x", "path of a machine"),
        ("~anna/x", "path of a machine"),
        ("~/models/x", "path of a machine"),
        ("../../other/x", "leads out"),
        ("..\\..\\other\\x", "leads out"),
        ("/shelf/models/vicuna", "M2PT_MODELS"),
        ("/shelf/sets/mine", "M2PT_DATA"),
        ("tuned by RuthMeier", "this user"),
        ("on gpu17.", "this machine"),
        ("on gpu17.lab.example,", "this machine"),
        ("| patients_2024 | 71.2 |", "data set of your own"),
    ],
)
def test_every_form_is_found_in_its_line(text: str, what: str) -> None:
    places = found(ORDINARY + text + "\n", ("patients_2024",))
    assert places
    assert all(line == ORDINARY.count("\n") + 1 for line, _ in places)
    assert any(what in said for _, said in places)


def test_places_of_this_process(tmp_path: Path) -> None:
    assert (1, "the home folder's path") in found(f"{tmp_path}/people/rm/x")
    for text in ("x {}/outputs", "x={}", "file://{}", "'{}'"):
        assert (1, "the working directory's path") in found(text.format(tmp_path / "checkout"))


def test_a_short_path_is_none_inside_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/app")
    assert found("https://example.org/application and docs/app/x.md, and/apple") == []
    assert found("in /app/x") == [(1, "the home folder's path")]


def test_what_a_name_or_a_place_is_only_a_part_of_is_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("ruthmeiers, truthmeier, gpu170, old-gpu17, gpu17-b, big_patients_2024", ("patients_2024",)) == []
    monkeypatch.setattr(getpass, "getuser", lambda: "Ubuntu")
    monkeypatch.setattr(socket, "gethostname", lambda: "ab")
    monkeypatch.setenv("M2PT_MODELS", "/x")
    assert found("on Ubuntu, ab, 3/x and /x") == []


def test_a_place_behind_a_link_is_found_by_both_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "shelf")
    monkeypatch.setenv("M2PT_MODELS", str(tmp_path / "link"))
    for place in ("shelf", "link"):
        assert (1, "the path in M2PT_MODELS") in found(str(tmp_path / place / "x"))


def test_letters_that_json_escapes() -> None:
    path = json.dumps({"a": "/home/jürgen/x", "set": "größen"}) + "\n"
    assert [what for _, what in found(path, ("größen",))] == [
        "a path of a machine",
        "the name of a data set of your own",
    ]
    assert found('"\\/home\\/anna\\/x"')


def test_tokens_are_not_shown_and_names_can_be_allowed() -> None:
    token = "hf_" + "aB3" * 12
    with pytest.raises(BadInputError) as caught:
        refuse_leaks({"README.md": f"x\n{token}\n/home/anna/x"}, (), ())
    assert token not in str(caught.value)
    assert "README.md:2: a token of the Hugging Face hub stands here: hf_aB3...; 1 more below it" in str(caught.value)
    with pytest.raises(BadInputError, match="--name-ok ruthmeier sends it all the same"):
        refuse_leaks({"README.md": "by ruthmeier"}, (), ())
    refuse_leaks({"README.md": "by ruthmeier"}, (), ("RuthMeier",))
    refuse_leaks({"README.md": "on Patients"}, ("Patients",), ("patients",))
    refuse_leaks({"README.md": "by ruthmeier, patients_2024"}, ("patients_2024",), ("ruthmeier", "patients_2024"))


CONFIG = """
data:
  class_path: data_modules.mixture.Mixture
  init_args:
    names: [public_part, ward_notes]
    sets:
    - class_path: data_modules.vision_flan.VisionFlan
      init_args: {root: data/testbed/vision_flan}
    - class_path: data_modules.conversations.Conversations
      init_args: {file: a/patients_2024.json}
benchmarks:
- class_path: data_modules.vsr.VSR
  init_args: {root: data/testbed/vsr}
- class_path: data_modules.questions.Questions
  init_args: {file: a/questions.csv, name: rounds}
- class_path: clinic.sets.WardQuestions
  init_args: {root: a}
"""


def test_sets_of_ones_own_are_those_that_do_not_come_with_the_project(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "predictions").mkdir()
    for name in ("vsr", "pope", "ward_questions", "ab"):  # two letters stand in every text
        (tmp_path / "predictions" / f"{name}.jsonl").touch()
    assert private_set_names(tmp_path) == {"patients_2024", "ward_notes", "rounds", "WardQuestions", "ward_questions"}
    assert private_set_names(None) == set()


def test_an_empty_licence_is_none_and_sizes_are_bytes(tmp_path: Path) -> None:
    assert licence_of("---\nlicense: ''\n---\n") is None
    adapter = write_run(tmp_path) / "adapter"
    made = Publication(adapter, "{}", "Gr\u00fc\u00dfe", "mit", (), frozenset())
    assert made.sizes()["README.md"] == 7


def pushed(capfd: pytest.CaptureFixture, run: Path, *words: str) -> tuple[int, str]:
    code = main(["push", str(run), "someone/tuned", "--license", "mit", *words])
    return code, capfd.readouterr().err


def test_every_file_is_read(tmp_path: Path, capfd) -> None:
    run = write_run(tmp_path, card=CARD + "| ward_notes | 1 |\n")
    assert pushed(capfd, run) == (ExitCode.DONE, "")
    (run / "config.yaml").write_text(CONFIG)
    code, err = pushed(capfd, run)
    assert code == ExitCode.BAD_INPUT
    line = CARD.count("\n") + 2  # with the licence's own
    assert f"README.md:{line}: the name of a data set of your own stands here: ward_notes" in err
    assert pushed(capfd, run, "--name-ok", "ward_notes") == (ExitCode.DONE, "")
    assert pushed(capfd, run / "adapter")[0] == ExitCode.BAD_INPUT  # the run around it is known
    assert (
        main(["push", str(run), "ruthmeier/ward_notes", "--license", "mit"]) == ExitCode.DONE
    )  # the address says them
    config = run / "adapter" / "adapter_config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"template": "/home/anna/words.yaml"}, indent=2))
    code, err = pushed(capfd, run, "--name-ok", "ward_notes")
    assert "a path of a machine stands here: /home/anna/words.yaml" in err
    number = config.read_text().split("/home/anna")[0].count("\n") + 1
    assert f"adapter_config.json:{number}:" in err
    tensors = run / "adapter" / "adapter_model.safetensors"
    stored = tensors.read_bytes()
    length = int.from_bytes(stored[:8], "little")
    header = json.dumps({"__metadata__": {"by": "/home/anna"}, **json.loads(stored[8 : 8 + length])}).encode()
    changed = len(header).to_bytes(8, "little") + header + stored[8 + length :]
    tensors.write_bytes(changed)
    config.write_text(json.dumps(content | manifest_of(changed)))
    code, err = pushed(capfd, run, "--name-ok", "ward_notes")
    assert code == ExitCode.BAD_INPUT
    assert "adapter_model.safetensors:1: a path of a machine stands here: /home/anna" in err
