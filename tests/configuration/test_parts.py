"""Files that are put together from parts: what stands where, and what names file, line and remedy."""

from pathlib import Path

import pytest

from experiments.configuration.cli import parse_experiment
from experiments.configuration.composition import compose, read_words
from experiments.configuration.parts import MOST_FILES, PartReader, experiment_file, files_of, read_sources
from lightning_m2pt.configuration.paths import values_of_files
from lightning_m2pt.errors import BadInputError

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "experiments"


def write(folder: Path, **files: str) -> Path:
    """Writes files by their names, ``_`` being a folder's end; returns the first."""
    paths = []
    for name, text in files.items():
        path = folder / f"{name.replace('_', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths[0]


def tree_of(*paths: Path, words: tuple[str, ...] = ()) -> dict:
    """Returns what files and words are composed to."""
    reader = PartReader()
    trees = [values_of_files(node) for path in paths for node in reader.experiment(path)]
    return compose(trees, reader.of_words(read_words(words).settings), accepts=lambda *_: True)


def component(name: str, **arguments: object) -> dict:
    return {"class_path": f"a.{name}", "init_args": arguments}


def test_a_files_own_keys_go_on_top_of_what_it_includes_in_order(tmp_path):
    path = write(
        tmp_path,
        own="data: {init_args: {size: 3}}\ninclude: [parts/one.yaml, parts/two.yml]\n",
        parts_one="include: deeper/base.yaml\ndata: {class_path: a.B, init_args: {size: 1, root: r}}\n"
        "trainer: {x: 1}\n",
        parts_deeper_base="data: {class_path: a.A, init_args: {lost: 1}}\ntrainer: {x: 0, y: 0}\n",
    )
    (tmp_path / "parts" / "two.yml").write_text("trainer: {x: 2}\n")
    assert tree_of(path) == {"data": component("B", size=3, root="r"), "trainer": {"x": 2, "y": 0}}
    assert [file.name for file in files_of(path)] == ["own.yaml", "one.yaml", "base.yaml", "two.yml"]


def test_a_files_name_stands_for_a_group_a_component_a_list_and_items_of_it(tmp_path):
    path = write(
        tmp_path,
        own="model: model.yaml\ndata: sets/d.yaml\nbenchmarks: [sets/list.yaml, sets/d.yaml, {class_path: a.C}]\n"
        "trainer: {callbacks: calls.yaml, logger: 'x.yml'}\n",
        model="method: deep/method.yaml\noptimizer: {rate: 1}\n",
        deep_method="class_path: a.M\ninit_args: {size: 2}\n",
        sets_d="class_path: a.D\ninit_args: {root: ../r}\n",
        sets_list="- class_path: a.L\n  init_args: {root: r}\n- d.yaml\n",
        calls="class_path: a.K\n",
    )
    (tmp_path / "x.yml").write_text("class_path: a.Logger\n")
    tree = tree_of(path)
    assert tree["model"] == {"method": component("M", size=2), "optimizer": {"rate": 1}}
    assert tree["data"] == component("D", root="../r")
    assert tree["benchmarks"] == [
        component("L", root="r"),
        component("D", root="../r"),
        component("D", root="../r"),
        {"class_path": "a.C"},
    ]
    assert tree["trainer"] == {"callbacks": [{"class_path": "a.K"}], "logger": {"class_path": "a.Logger"}}
    assert tree["data"]["init_args"]["root"].folder == tmp_path / "sets"


def test_words_name_parts_as_seen_from_the_working_directory(tmp_path, monkeypatch):
    write(tmp_path, d="class_path: a.D\ninit_args: {root: r, size: 1}\n", list="[{class_path: a.L}, d.yaml]\n")
    monkeypatch.chdir(tmp_path)
    assert tree_of(words=("--data", "d.yaml", "--data.size=2"))["data"] == component("D", root="r", size="2")
    both = tree_of(words=("--benchmarks", "list.yaml", "--benchmarks+=d.yaml", "--benchmarks.size", "3"))["benchmarks"]
    assert both == [{"class_path": "a.L"}, component("D", root="r", size=1), component("D", root="r", size="3")]
    every = tree_of(words=("--benchmarks", "list.yaml", "--benchmarks.size", "3"))["benchmarks"]
    assert [item["init_args"]["size"] for item in every] == ["3", "3"]
    assert tree_of(words=("--benchmarks", "[d.yaml]"))["benchmarks"] == [component("D", root="r", size=1)]
    assert tree_of(words=("--trainer", "{callbacks: [d.yaml]}"))["trainer"]["callbacks"][0]["class_path"] == "a.D"


def test_no_other_value_is_taken_for_a_file(tmp_path):
    path = write(tmp_path, own="output_root: d.yaml\ndata: {init_args: {root: d.yaml, sets: [d.yaml]}}\n", d="a: 1\n")
    assert tree_of(path) == {"output_root": "d.yaml", "data": {"init_args": {"root": "d.yaml", "sets": ["d.yaml"]}}}
    path = write(tmp_path, own="data: {init_args: d.yaml}\n", d="a: 1\n")
    assert tree_of(path) == {"data": {"init_args": "d.yaml"}}


def refused(*paths: Path, words: tuple[str, ...] = ()) -> list[str]:
    """Returns the lines of the error that an experiment ends in."""
    with pytest.raises(BadInputError) as error:
        parse_experiment([*(word for path in paths for word in ("--config", str(path))), *words])
    lines = error.value.message().splitlines()
    assert len(lines) <= 3
    return lines


CASES = {
    "a missing part": (
        {"own": "model: {}\ndata: nope.yaml\n", "node": "a: 1\n"},
        ["error: {0}/own.yaml:2: data: there is no file {0}/nope.yaml", "hint: did you mean {0}/node.yaml?"],
    ),
    "a missing include": (
        {"own": "\ninclude: [x.yaml]\n"},
        ["error: {0}/own.yaml:2: include: there is no file {0}/x.yaml"],
    ),
    "an include that is no name": ({"own": "include: [parts]\n"}, ["error: {0}/own.yaml:1: this names no part"]),
    "an include that is a mapping": ({"own": "include: {a: b.yaml}\n"}, ["error: {0}/own.yaml:1: this names no part"]),
    "an empty part": (
        {"own": "data: d.yaml\n", "d": "# nothing\n"},
        ["error: {0}/d.yaml: nothing in it can stand for data", "hint: named at {0}/own.yaml:1: data"],
    ),
    "an empty include": ({"own": "include: d.yaml\n", "d": ""}, ["error: {0}/d.yaml: no keys in here"]),
    "a list for a component": ({"own": "data: d.yaml\n", "d": "[a]\n"}, ["error: {0}/d.yaml: nothing in it can stand"]),
    "a word for a list": ({"own": "benchmarks: d.yaml\n", "d": "a\n"}, ["error: {0}/d.yaml: nothing in it can stand"]),
    "an experiment for a component": (
        {"own": "data: d.yaml\n", "d": "data: {class_path: a.B}\n"},
        ["error: {0}/d.yaml: this cannot stand for data: it holds", "hint: {0}/own.yaml:1: data: name the file under"],
    ),
    "an include in a component": (
        {"own": "data: d.yaml\n", "d": "include: e.yaml\ninit_args: {a: 1}\n"},
        ["error: {0}/d.yaml: a part that stands for data includes nothing", "hint: {0}/own.yaml:1: data: write what"],
    ),
    "a component for an experiment": (
        {"own": "include: d.yaml\n", "d": "class_path: a.B\n"},
        [
            "error: {0}/d.yaml:1: this is one component",
            "hint: name the file where its component stands, as in data: d.yaml",
        ],
    ),
    "a circle of includes": (
        {"own": "include: b.yaml\n", "b": "\ninclude: own.yaml\n"},
        ["error: {0}/b.yaml:2: include: own.yaml is a part of itself: own.yaml -> b.yaml -> own.yaml"],
    ),
    "a component that is itself": (
        {"own": "benchmarks: b.yaml\n", "b": "[{class_path: a.B}, b.yaml]\n"},
        ["error: {0}/b.yaml:1: benchmarks: b.yaml is a part of itself: own.yaml -> b.yaml -> b.yaml"],
    ),
    "no YAML": ({"own": "data: d.yaml\n", "d": "a: [\n"}, ["error: {0}/d.yaml:2: "]),
    "a tag": ({"own": "include: d.yaml\n", "d": "x: !!python/name:os.system\n"}, ["error: {0}/d.yaml:1: the tag"]),
    "a key twice": ({"own": "data: d.yaml\n", "d": "a: 1\na: 2\n"}, ["error: {0}/d.yaml:2: a: also written on line 1"]),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_with_a_part_is_named_with_its_place(tmp_path, name):
    files, expected = CASES[name]
    lines = refused(write(tmp_path, **files))
    for text in expected:
        assert any(line.strip().startswith(text.format(tmp_path)) for line in lines), lines
    assert any(line.startswith("  expected: ") for line in lines)


def test_a_folder_and_a_file_of_the_working_directory_are_no_parts(tmp_path, monkeypatch):
    path = write(tmp_path, files_own="data: d.yaml\n", d="class_path: a.B\n")
    monkeypatch.chdir(tmp_path)
    assert "the working directory has a d.yaml" in refused(path)[-1]
    (tmp_path / "files" / "d.yaml").mkdir()
    assert refused(path)[0] == f"error: {tmp_path}/files/d.yaml: this is a folder"


def test_a_circle_is_seen_through_links(tmp_path):
    path = write(tmp_path, own="include: link.yaml\n")
    (tmp_path / "link.yaml").symlink_to("own.yaml")
    chain = "link.yaml is a part of itself: own.yaml -> link.yaml"
    assert refused(path)[0] == f"error: {path}:1: include: {chain}"


@pytest.mark.parametrize(
    "text",
    ["{class_path: a.B, class_path: a.C}", "[{a: 1, a: 2}]", "{a: &x 1, b: *x}", "[!!python/name:os.system]", "{a: ["],
)
def test_what_words_spell_out_is_read_as_strictly_as_a_file(text):
    for key in ("data", "benchmarks", "trainer.devices"):
        with pytest.raises(BadInputError, match="command line"):
            PartReader().of_words(read_words([f"--{key}", text]).settings)


def test_a_file_over_a_runs_own_has_parts_and_the_runs_own_has_none(tmp_path):
    run = write(tmp_path, run_config="data: d.yaml\n", more="data: parts/d.yaml\n", parts_d="init_args: {root: r}\n")
    command = read_words(["--config", str(run), "--config", str(tmp_path / "more.yaml")])
    recorded, later = read_sources(command, was_run=True).trees
    assert (recorded, later) == ({"data": "d.yaml"}, {"data": {"init_args": {"root": "r"}}})
    assert later["data"]["init_args"]["root"].folder == tmp_path / "parts"


def test_too_many_files_are_refused(tmp_path):
    path = write(tmp_path, own="include: [" + ", ".join(["d.yaml"] * MOST_FILES) + "]\n", d="data: {}\n")
    assert refused(path)[0] == f"error: {path}:1: include: more than {MOST_FILES} files"


def test_a_wrong_key_or_value_in_a_part_names_the_parts_line(tmp_path):
    base = f"include: {SHIPPED}/m2pt_base.yaml\n"
    path = write(tmp_path, own=base + "data: d.yaml\n", d="init_args:\n  # a comment\n  batch_szie: 3\n")
    assert refused(path) == [
        f"error: {tmp_path}/d.yaml:3: data.batch_szie: unknown key",
        "  expected: one of its 19 keys",
        "  hint: did you mean batch_size?",
    ]
    path = write(tmp_path, own=base + "trainer: t.yaml\n", t="accelerator: cpu\nmax_steps: x\n")
    assert refused(path)[0] == f"error: {tmp_path}/t.yaml:2: trainer.max_steps: 'x' does not fit"
    mme = "class_path: data_modules.mme.MME\ninit_args: {template: plain}\n"
    path = write(tmp_path, own=base + "benchmarks:\n- m.yaml\n", m=mme)
    assert refused(path)[0] == f"error: {tmp_path}/m.yaml:2: benchmarks.MME.root: this key is missing"
    assert refused(SHIPPED / "m2pt_base.yaml", words=("--benchmarks", str(tmp_path / "m.yaml")))[0].startswith(
        "error: "
    )
    words = ("--data", str(tmp_path / "d.yaml"))
    assert refused(SHIPPED / "m2pt_base.yaml", words=words)[0] == (
        f"error: {tmp_path}/d.yaml:3: data.batch_szie: unknown key"
    )


def test_a_mistake_in_what_is_included_names_that_file(tmp_path):
    path = write(tmp_path, own="include: p.yaml\n", p=f"include: {SHIPPED}/m2pt_base.yaml\nmodle: {{}}\n")
    assert refused(path)[0] == f"error: {tmp_path}/p.yaml:2: modle: unknown key"
    path = write(
        tmp_path,
        own="include: p.yaml\nmodel: {method: {init_args: {visual_length: x}}}\n",
        p=f"include: {SHIPPED}/m2pt_base.yaml\n",
    )
    assert refused(path)[0].startswith(f"error: {tmp_path}/own.yaml:2: model.method.visual_length: ")


def test_a_misspelt_experiment_gets_the_nearest_name(tmp_path, monkeypatch):
    wrong = SHIPPED / "m2pt_bas.yaml"
    assert refused(wrong) == [
        f"error: {wrong}: there is no such file",
        "  expected: an experiment's YAML file",
        f"  hint: did you mean {SHIPPED}/m2pt_base.yaml?",
    ]
    monkeypatch.chdir(tmp_path)
    assert refused(Path("m2pt_bas"))[-1].startswith("  hint: did you mean m2pt_base?")


def test_an_experiment_that_comes_with_the_project_goes_by_its_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert experiment_file("m2pt_base") == SHIPPED / "m2pt_base.yaml"
    assert parse_experiment(["--config", "m2pt_base"]).name == "m2pt_base"
    assert experiment_file("nothing") == Path("nothing")
    assert experiment_file("parts/testbed") == Path("parts/testbed")
    (tmp_path / "m2pt_base").write_text("")
    assert experiment_file("m2pt_base") == Path("m2pt_base")  # what is here is meant
