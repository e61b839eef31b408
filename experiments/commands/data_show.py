"""Runs ``m2pt data show``; its flags and what it is for are in ``parsers``."""

import difflib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from rich.table import Table
from rich.text import Text

from data_modules.base import DataModule, PictureOfItem, pictures_of
from data_modules.benchmark import BenchmarkDataModule
from data_modules.instruction import InstructionDataModule
from data_modules.vision_flan import VisionFlan
from experiments.commands.own_file import experiment_of_words
from experiments.commands.parsers.data_show import (
    DEFAULT_CONFIG,
    EVERY_SET,
    OTHER_TUNING_SET,
    PICTURES_OF_EVERY_SET,
    PICTURES_OF_ONE_SET,
    QUESTIONS_OF_A_PICTURE,
    SAMPLES_OF_ONE_SET,
    TUNING_SET,
    argument_parser,
)
from experiments.configuration.cli import Experiment
from experiments.datasets.contact_sheet import (
    ELLIPSIS,
    ShownPicture,
    ShownQuestion,
    ShownSet,
    printable,
    sheet_of_set,
    sheet_of_sets,
)
from experiments.datasets.rendered_page import page_of_samples
from experiments.datasets.rendered_set import rendered_set
from experiments.datasets.rendered_text import shown_samples
from experiments.datasets.spread import spread_positions
from experiments.runs.prepare import connect_experiment, render_testbed_if_used
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode
from lightning_m2pt.inputs.images import open_image
from lightning_m2pt.inputs.samples import Question, Sample
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import OUT, say
from lightning_m2pt.tuning.positions import room_for_rows, run_rows

MOST_PICTURES = 200
SHEET, PAGE = ".png", ".html"
LETTERS_IN_TABLE = 240
LETTERS_OF_ID = 60
LETTERS_OF_REVISION = 12


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    own, rest = argument_parser().parse_known_args(list(arguments))
    rendered = own.rendered or own.file is not None
    ending = PAGE if rendered else SHEET
    check_flags(own.count, own.output, ending)
    if own.file is None and own.set is None and not (own.rendered and own.config):
        raise BadInputError(
            "neither --set nor a file is named", where="command line", expected="see `m2pt data show --help`"
        )
    files = [word for file in own.config or [DEFAULT_CONFIG] for word in ("--config", file)]
    experiment = experiment_of_words(own.file, own.rule, own.template, files, rest)
    sets = sets_of(experiment) if own.file is None else {Path(own.file).name: experiment.data}
    chosen = own.set or next(iter(sets))
    if chosen not in {*sets, EVERY_SET}:
        raise unknown_set(chosen, list(sets), files)
    names = list(sets) if chosen == EVERY_SET else [chosen]
    if rendered:
        for name in names:
            path = own.output or experiment.output_root / "data_show" / f"{name}{PAGE}"
            show_rendered(experiment, name, sets[name], own.count or SAMPLES_OF_ONE_SET, path)
        return ExitCode.DONE
    render_testbed_if_used(experiment)
    count = own.count or (PICTURES_OF_EVERY_SET if chosen == EVERY_SET else PICTURES_OF_ONE_SET)
    shown = [shown_set(name, sets[name], count) for name in names]
    for each in shown:
        OUT.print(question_table(each))
    if chosen == EVERY_SET:
        facts = [f"{len(shown)} sets", f"up to {count} pictures of each"]
        sheet = sheet_of_sets(experiment.name, facts, shown)
    else:
        sheet = sheet_of_set(shown[0])
    path = own.output or experiment.output_root / "data_show" / f"{chosen}{SHEET}"
    content = BytesIO()
    sheet.save(content, format="PNG", optimize=True)
    write_file(path, content.getvalue())
    say(f"contact sheet: {path} ({sheet.width} x {sheet.height} pixels)")
    return ExitCode.DONE


def check_flags(count: int | None, output: Path | None, ending: str) -> None:
    """Looks at the command's own flags before anything is read.

    Raises:
        BadInputError: If the count is out of range, or the output cannot be a file of the kind that is written.
    """
    if count is not None and not 1 <= count <= MOST_PICTURES:
        raise BadInputError(f"{count} pictures", where="command line: --count", expected=f"1 to {MOST_PICTURES}")
    if output is not None and (output.suffix.lower() != ending or output.is_dir()):
        raise BadInputError(
            f"{str(output)!r} is no {'HTML page' if ending == PAGE else 'PNG file'}",
            where="command line: --output",
            expected=f"a file name that ends in {ending}",
            hint="" if ending == PAGE else "with --rendered a page is written, .html",
        )


def show_rendered(experiment: Experiment, name: str, data: DataModule, count: int, path: Path) -> None:
    """Shows samples as the model reads them, in the terminal and as a page.

    Raises:
        BadInputError: If the set cannot be read, or a sample cannot be encoded.
        EnvironmentFailure: If the page cannot be written.
    """
    connect_experiment(experiment)
    shape, method = experiment.model.backbone.shape, experiment.model.method
    facts, samples = rendered_set(data, count, run_rows(shape, method), room_for_rows(shape, method))
    for block in shown_samples(samples, [f"{name}: {data.root}", *facts], OUT):
        OUT.print(block)
    write_file(path, page_of_samples(name, facts, samples).encode())
    say(f"page: {path}")


def sets_of(experiment: Experiment) -> dict[str, DataModule]:
    """Returns the sets of an experiment by name, the tuning set first."""
    is_tuning = isinstance(experiment.data, InstructionDataModule)
    name = TUNING_SET if isinstance(experiment.data, VisionFlan) else OTHER_TUNING_SET
    sets: dict[str, DataModule] = {name: experiment.data} if is_tuning else {}
    for benchmark in [experiment.data, *experiment.benchmarks]:
        if isinstance(benchmark, BenchmarkDataModule):
            sets.setdefault(benchmark.name, benchmark)
    return sets


def unknown_set(name: str, names: Sequence[str], files: Sequence[str]) -> BadInputError:
    """Returns the error about a set that the experiment does not have."""
    near = difflib.get_close_matches(name.lower(), [*names, EVERY_SET], n=1)
    return BadInputError(
        f"there is no set {name!r:.80} in {files[-1]}",
        where="command line: --set",
        expected=", ".join([*names, EVERY_SET]),
        hint=f"did you mean `--set {near[0]}`?" if near else "name another experiment with --config",
    )


def shown_set(name: str, data_module: DataModule, count: int) -> ShownSet:
    """Returns some pictures of a set with what is asked about them.

    Raises:
        BadInputError: If an annotation is wrong, or a picture is missing or cannot be read.
    """
    is_tuning = isinstance(data_module, InstructionDataModule)
    items = data_module.read_once()[0] if isinstance(data_module, InstructionDataModule) else data_module.items()
    revision = data_module.fingerprint()[:LETTERS_OF_REVISION]
    groups: dict[str, tuple[PictureOfItem, list[Sample | Question]]] = {}
    for item in items:
        for picture in pictures_of(item):
            groups.setdefault(picture.key, (picture, []))[1].append(item)
    pictures = list(groups.values())
    positions = range(min(count, len(pictures))) if is_tuning else spread_positions(len(pictures), count)
    asked = sum(number_of_questions(item) for item in items)
    facts = (
        f"{asked:,} questions on {len(pictures):,} pictures" + (" to train on" if is_tuning else ""),
        f"data revision {revision}",
        f"template {data_module.template.name}",
    )
    return ShownSet(name, facts, tuple(shown_picture(*pictures[position]) for position in positions))


def different_questions(asked: Sequence[ShownQuestion], count: int) -> tuple[ShownQuestion, ...]:
    """Returns at most ``count`` questions of different texts, spread evenly; POPE's splits ask some things again."""
    chosen: dict[str, ShownQuestion] = {}
    for position in spread_positions(len(asked), count):
        from_here = [*asked[position:], *asked[:position]]
        new = next((question for question in from_here if question.text not in chosen), None)
        if new is not None:
            chosen[new.text] = new
    return tuple(chosen.values())


def number_of_questions(item: Sample | Question) -> int:
    """Returns how many questions an item asks."""
    return len(item.turns) if isinstance(item, Sample) else 1


def shown_picture(picture: PictureOfItem, items: Sequence[Sample | Question]) -> ShownPicture:
    """Returns a picture with some of its questions: a conversation's all, or a few different ones of the set's.

    Raises:
        BadInputError: If the picture cannot be read.
    """
    asked = [shown for item in items for shown in questions_of(item)]
    conversation = tuple(questions_of(items[0]))
    questions = conversation if len(conversation) > 1 else different_questions(asked, QUESTIONS_OF_A_PICTURE)
    return ShownPicture(open_image(picture.image, picture.source), questions, len(asked))


def questions_of(item: Sample | Question) -> list[ShownQuestion]:
    """Returns the questions of an item with their right answers."""
    if isinstance(item, Sample):
        return [
            ShownQuestion(item.id, task, turn.question, turn.answer)
            for turn, task in zip(item.turns, item.tasks, strict=True)
        ]
    return [ShownQuestion(item.id, item.subtask, item.text, item.target)]


def question_table(shown: ShownSet) -> Table:
    """Returns a row for every question on the sheet; a conversation's id stands at its first turn."""
    table = Table(title=f"{shown.name}: {', '.join(shown.facts)}", title_justify="left")
    table.add_column("id", overflow="fold", max_width=30)
    table.add_column("subtask", overflow="fold", max_width=32)
    table.add_column("question", overflow="fold")
    table.add_column("answer", overflow="fold", max_width=40)
    for picture in shown.pictures:
        identity = ""
        for question in picture.questions:
            shown_id = cut(question.id, LETTERS_OF_ID) if question.id != identity else ""
            cells = (shown_id, cut(question.subtask), cut(question.text), cut(question.answer))
            table.add_row(*map(Text, cells))
            identity = question.id
    return table


def cut(text: str, letters: int = LETTERS_IN_TABLE) -> str:
    """Returns a text on one line, cut off with an ellipsis where it is long."""
    line = printable(text)
    return line if len(line) <= letters else line[: letters - 1].rstrip() + ELLIPSIS


def write_file(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all.

    Raises:
        EnvironmentFailure: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise EnvironmentFailure(
            error.strerror or str(error),
            where=str(path),
            expected="a folder this user may write to, with room in it",
            hint="choose another file with --output",
        ) from error
