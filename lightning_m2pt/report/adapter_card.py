"""The model card of an adapter: all that its run's folder tells, and nothing that only this machine knows.

The same folder gives the same card, byte for byte; after every evaluation of a run's own sets it is written again.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from lightning_m2pt.backbones.origins.made import origin_in
from lightning_m2pt.backbones.origins.said import AT_COMMIT, REPOSITORY, BaseOrigin
from lightning_m2pt.configuration.tree import CLASS_PATH
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.bound_template import labelled
from lightning_m2pt.metrics.score import Score
from lightning_m2pt.metrics.statistics import percentile_interval, resampled_scores
from lightning_m2pt.report.tables.contamination import contamination_notes, recorded_tasks
from lightning_m2pt.report.tables.groups import interval_text, unit_of
from lightning_m2pt.report.tables.scores import chance, headline
from lightning_m2pt.report.tables.selection import chosen_text, selection_notes
from lightning_m2pt.runs.evaluated import PREDICTIONS, EvaluatedSet, read_run
from lightning_m2pt.runs.loading import ADAPTER, BEST
from lightning_m2pt.runs.results_file import RESULTS_FILE, untouched_scores
from lightning_m2pt.storage.adapter_folder import (
    CARD_FILE,
    CHOSEN,
    CONFIG_FILE,
    PICTURES,
    QUANTIZATION,
    TEMPLATE_DIGEST,
    TENSOR_FILE,
    TUNED,
    packing,
    read_adapter_config,
    read_tensors,
)
from lightning_m2pt.storage.run_record import COMPLETED, DECIDING, MADE_WITH, TRAINABLE, read_run_record
from lightning_m2pt.storage.run_record import CONFIG_FILE as RUN_FILE
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import say
from lightning_m2pt.system.tensor_hashes import hash_tensors

PLACE = "PLACE"
"""What stands in a command for a file or folder of the machine it ran on."""
OURS = re.compile(r"experiments/(?:(?!\.\.).)+|(?:lightning_m2pt|data_modules|callbacks)(?:\.\w+)+")
"""Files and classes that come with the project are named."""
NAMES_PLACE = re.compile(r"[/\\~]|\.[A-Za-z]\w{1,11}$")
LICENCES = (
    "The licences of the base and of the data that it was tuned on bind what is made of them; this card does not know "
    "them all."
)
OF_EMBEDDED = "The base comes with lightning_m2pt, under Apache-2.0."


def write_adapter_cards(run: Path) -> None:
    """Writes the cards of a run's adapters; one that says all this already is left alone.

    Args:
        run: The run's folder.
    """
    for adapter in (run / ADAPTER, run / BEST):
        if not (adapter / CONFIG_FILE).is_file():
            continue
        content = adapter_card(adapter, run).encode()
        path = adapter / CARD_FILE
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content)


def adapter_card(adapter: Path, run: Path) -> str:
    """Returns the text of an adapter's card.

    Args:
        adapter: The adapter's folder.
        run: The folder of the run that it is of; what it does not say is left out.

    Raises:
        BadInputError: If the adapter's configuration or the run's record is damaged.
    """
    config, record = read_adapter_config(adapter), read_run_record(run)
    origin = origin_in(config, str(adapter / CONFIG_FILE))
    place = run.absolute()
    name = place.parent.name if (run / RUN_FILE).is_file() else place.name  # a run from Python has a folder alone
    method = str(config["peft_type"]).lower()
    sections = [
        header(method, origin),
        f"# {method} adapter" + (f" of experiment {name}" if DECIDING in record else ""),
        f"{tuned_text(config, record)} Only the tensors in `{TENSOR_FILE}` were trained; the base is not in here.",
        "## Use\n\n" + use_text(origin),
        "## Base\n\n" + table(("what", "value"), base_rows(config, origin)),
        "## What was trained\n\n" + table(("part", "trained", "never moves"), part_rows(config, record)),
        "## Scores\n\n" + scores_text(adapter, run, record),
        "## How it was made\n\n" + table(("what", "value"), made_rows(record)),
        "## Licences\n\n" + (f"{OF_EMBEDDED} {LICENCES}" if origin.kind == "embedded" else LICENCES),
    ]
    return "\n\n".join(sections) + "\n"


def header(method: str, origin: BaseOrigin) -> str:
    """Returns the YAML in front of the card, which the hub reads."""
    places = repositories(origin)
    base = [f"base_model: {places[0]}"] if len(places) == 1 else ["base_model:", *(f"- {each}" for each in places)]
    lines = [
        "library_name: lightning_m2pt",
        *(base if places else ()),
        "base_model_relation: adapter",
        "pipeline_tag: image-text-to-text",
        f"tags: [prompt-tuning, vision-language, {', '.join(method.split('+'))}]",
    ]
    return "\n".join(["---", *lines, "---"])


def repositories(origin: BaseOrigin) -> list[str]:
    """Returns the repositories of a base that is of the hub, each once."""
    places = [value[REPOSITORY] for value in origin.arguments.values() if isinstance(value, dict)]
    return list(dict.fromkeys(places))


def tuned_text(config: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Returns how long it was tuned, and what chose it, as sentences."""
    said = config.get(TUNED)
    tuned: Mapping[str, Any] = said if isinstance(said, dict) else {}
    ended, seed = record.get(COMPLETED), record.get(DECIDING, {}).get("seed", tuned.get("seed"))
    by = f"with {config.get('written_by', 'lightning_m2pt')}" + ("" if seed is None else f" (seed {seed})")
    if isinstance(config.get(CHOSEN), dict):
        return f"Tuned {by}: {chosen_text(config[CHOSEN])}."
    if not isinstance(ended, dict):
        steps = f" for {tuned['steps']} optimizer steps" if "steps" in tuned else ""
        return f"Tuned {by}{steps}" + ("; tuning was stopped before its last step." if MADE_WITH in record else ".")
    stopped = f", then stopped by {ended['stopped_by']!s:.120}" if ended.get("stopped_by") else ""
    return f"Tuned {by} for {ended.get('optimizer_steps')} optimizer steps{stopped}."


def use_text(origin: BaseOrigin) -> str:
    """Returns the lines that load it, and what they need."""
    given = ', base="FOLDER"' if origin.kind == "files" else ""
    lines = [
        "import lightning_m2pt",
        f'model = lightning_m2pt.load("ADAPTER"{given})',
        'print(model.ask("picture.jpg", "What is in the picture?"))',
    ]
    needs = {
        "embedded": "`ADAPTER` is this folder; the base comes with the package.",
        "hub": "`ADAPTER` is this folder; `m2pt models fetch` brings the base to a machine before.",
        "files": "`ADAPTER` is this folder, and `FOLDER` the base: one of the same fingerprint, or nothing is loaded.",
    }
    return "```python\n" + "\n".join(lines) + f"\n```\n\n{needs[origin.kind]}"


def base_rows(config: Mapping[str, Any], origin: BaseOrigin) -> list[tuple[str, ...]]:
    """Returns what is known of the base, and how it is asked."""
    places = [value for value in origin.arguments.values() if isinstance(value, dict)]
    commits = dict.fromkeys(f"{place[REPOSITORY]} at {place[AT_COMMIT]}" for place in places)
    pictures = config.get(PICTURES)
    rows: list[tuple[str, ...]] = [
        ("base", ", ".join(commits) or str(config.get("base_model_name_or_path"))),
        ("fingerprint", str(config.get("base_fingerprint"))),
        ("type of its weights", f"{config.get('base_dtype')}, in {packing(config.get(QUANTIZATION))}"),
        ("template", labelled(str(config.get("template")), config.get(TEMPLATE_DIGEST))),
    ]
    if isinstance(pictures, dict):
        rows.append(("pictures", ", ".join(f"{key} {value}" for key, value in pictures.items())))
    return rows


def part_rows(config: Mapping[str, Any], record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns the trained parts as the run recorded them, or the tensors' first names and how many numbers they are."""
    recorded = record.get(TRAINABLE, {}).get("parts")
    if isinstance(recorded, list):
        return [
            (str(part["name"]), f"{part['trained']:,}", ", ".join(map(str, part["dead_names"])) or "nothing")
            for part in recorded
        ]
    found: dict[str, int] = {}
    for name, entry in config.get("tensors", {}).items():
        size = 1
        for length in entry["shape"]:
            size *= length
        part = name.removeprefix("members.").partition(".")[0]
        found[part] = found.get(part, 0) + size
    return [(part, f"{size:,}", "") for part, size in found.items()]


def scores_text(adapter: Path, run: Path, record: Mapping[str, Any]) -> str:
    """Returns the scores of this adapter, how sure they are and what is to be known about them."""
    sets = sets_of_adapter(adapter, run)
    if not sets:
        return "It was not evaluated."
    untouched = untouched_of(run, sets)
    rows = [(*score_row(one), *untouched_cell(name, untouched)) for name, one in sets.items()]
    shots = max(one.shots for one in sets.values())
    headers = {name: one.answered.header for name, one in sets.items()}
    notes = [
        "the interval holds the middle 95% of scores on resamples of the questions; chance is the best constant answer",
        *(["untouched: what the base alone scored on the same questions"] if untouched else []),
        *contamination_notes("this adapter", recorded_tasks(record), list(sets), shots, headers),
        *selection_notes("this adapter", list(headers.values()), record),
    ]
    head = ("set", "rule", "score", "95% interval", "chance", "questions", *(("untouched",) if untouched else ()))
    shown = table(head, rows)
    return shown + "\n\n" + "\n".join(f"- {note}" for note in notes)


def score_row(one: EvaluatedSet) -> tuple[str, ...]:
    """Returns a set's name, rule, score, interval, chance and number of questions."""
    interval = percentile_interval(resampled_scores(one.answered, [one.score])[:, 0])
    spread, name = interval_text(interval, unit_of(one.score)), one.score.name
    return name, one.score.rule, headline(one.score), spread, chance(one.score), f"{one.score.n:,}"


def untouched_of(run: Path, sets: Mapping[str, EvaluatedSet]) -> dict[str, Score]:
    """Returns what the untouched model scored, for the sets where the run's folder knows it."""
    try:
        return untouched_scores(run, {name: one.score for name, one in sets.items()})
    except BadInputError as error:
        say(f"note: the model card leaves the untouched model out: {error.what} ({RESULTS_FILE})")
        return {}


def untouched_cell(name: str, untouched: Mapping[str, Score]) -> tuple[str, ...]:
    """Returns a set's cell in the column of the untouched model; none where no set has one."""
    if not untouched:
        return ()
    return (headline(untouched[name]),) if name in untouched else ("not known",)


def sets_of_adapter(adapter: Path, run: Path) -> dict[str, EvaluatedSet]:
    """Returns what a run's own evaluation says of this adapter; answers of another one are left out."""
    paths = sorted((run / PREDICTIONS).glob("*.jsonl"))
    if not paths:
        return {}
    tensors, found = hash_tensors(read_tensors(adapter / TENSOR_FILE)), {}
    for path in paths:
        try:
            one = read_run(run, [path.stem]).sets[path.stem]
        except BadInputError as error:
            say(f"note: the model card leaves {path.stem} out: {error.what}")
            continue
        if one.answered.header.get("adapter") == tensors and not one.answered.header["toggles"].get("knocked_out"):
            found[path.stem] = one
    return found


def made_rows(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns what a run's record says of how it was tuned."""
    decides, starts = record.get(DECIDING, {}), record.get(MADE_WITH, [])
    rows: list[tuple[str, ...]] = [("seed", str(decides["seed"]))] if "seed" in decides else []
    data, optimizer = decides.get("data"), decides.get("optimizer")
    if isinstance(data, dict):
        name = str(data.get(CLASS_PATH)).rpartition(".")[2]
        rows.append(("data", f"{name}, content {str(decides.get('data_fingerprint'))[:16]}"))
    if (tasks := recorded_tasks(record)) is not None:
        rows.append(("tasks", f"{len(tasks)}"))
    if isinstance(optimizer, dict):
        rows.append(("learning rates", text_of(optimizer.get("learning_rate"))))
    if starts:
        last = starts[-1]
        packages = last.get("packages")
        rows += [("started", ", ".join(str(start.get("started")) for start in starts))]
        rows += [("command", f"`{command_text(last.get('command'))}`")]
        if isinstance(packages, dict):
            rows.append(("packages", ", ".join(f"{name} {number}" for name, number in packages.items())))
        if last.get("git_commit"):
            rows.append(("revision of lightning_m2pt", str(last["git_commit"])))
    return rows or [("record", "there is none")]


def command_text(words: object) -> str:
    """Returns a command without places of the machine it ran on: only the project's own files keep their names."""
    if not isinstance(words, Sequence) or isinstance(words, str) or not words:
        return "not recorded"
    program, *rest = (str(word) for word in words)
    return " ".join([PurePath(program).name, *(without_places(word) for word in rest)])


def without_places(word: str) -> str:
    """Returns a word of a command, or its flag, with ``PLACE`` where it may name a file or folder."""
    flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if OURS.fullmatch(value) or NAMES_PLACE.search(value) is None:
        is_short = flag[1:2] not in ("", "-")  # a value may stand right behind a flag of one letter
        return f"{word[:2]}{PLACE}" if is_short and NAMES_PLACE.search(flag) else word
    return f"{flag}{equals}{PLACE}"


def text_of(value: object) -> str:
    """Returns a number, or numbers by name, as people read them."""
    return ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, Mapping) else str(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown; what would end a cell or a line is written otherwise."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell(each) for each in line)} |" for line in lines)


def cell(text: str) -> str:
    """Returns a text that stays within a cell."""
    return " ".join(text.split()).replace("|", r"\|")
