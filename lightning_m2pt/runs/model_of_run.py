"""A run's model from its folder alone: no data module, no Trainer, no checkout.

A run's ``config.yaml`` is read as strictly as an experiment's file, and only its section ``model`` is made into
objects, by the same parser and under the same policy of what may be imported.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from lightning_m2pt.configuration.allowed_imports import (
    IMPORT_FLAG,
    check_class_paths,
    check_opened,
    only_allowed_imports,
    refuse_functions,
)
from lightning_m2pt.configuration.interpolation import interpolated
from lightning_m2pt.configuration.parser_settings import PARSER
from lightning_m2pt.configuration.recorded import recorded_tree
from lightning_m2pt.configuration.tree import ARGUMENTS, PROMPT_TEXT, TOP_LEVEL_KEYS
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.inputs.named_templates import Template, is_known, read_prompt, template_named
from lightning_m2pt.runs.loading import ADAPTER
from lightning_m2pt.storage.adapter_folder import CONFIG_FILE as ADAPTER_CONFIG
from lightning_m2pt.storage.adapter_folder import read_adapter_config
from lightning_m2pt.storage.adapter_template import CONTENT, adapter_template
from lightning_m2pt.storage.run_record import CONFIG_FILE
from lightning_m2pt.tuning.module import TuningModule

MODEL = "model"
MOST_LETTERS = 200


def config_file(run: Path) -> Path:
    """Returns a run's resolved configuration.

    Raises:
        BadInputError: If the folder is no run.
    """
    path = run / CONFIG_FILE
    if not path.is_file():
        raise BadInputError(
            "no run here", where=str(run), expected="a folder outputs/EXPERIMENT/RUN", hint=runs_near(run)
        )
    return path


def runs_near(place: str | os.PathLike[str]) -> str:
    """Returns a hint for whoever names a folder that is no run: the newest run inside it, or else beside it.

    Args:
        place: What was named; it need not be there, or be a path at all.
    """
    folder = Path(place)
    for outer in (folder, folder.parent):
        with suppress(OSError, ValueError):  # no right to look, a name that no path can have
            found = [path.parent for path in outer.glob(f"*/{CONFIG_FILE}")]
            if found:
                newest = max(found, key=lambda run: (run.stat().st_mtime_ns, run.name))
                return f"{newest} is {'the run' if len(found) == 1 else f'the newest of {len(found)} runs'} there"
    return "ls outputs/*/"


def config_of_run(run: Path) -> dict[str, Any]:
    """Reads a run's resolved configuration as plain values; nothing is imported.

    Raises:
        BadInputError: If the folder is no run, or the file is not YAML of plain values.
    """
    return recorded_tree(config_file(run))


def model_of_run(run: Path, words: Sequence[str] = ()) -> TuningModule:
    """Makes a run's backbone and method; no weights are loaded.

    Args:
        run: The run's folder.
        words: What the command line sets on top: ``--model.KEY VALUE`` and ``--allow-import PACKAGE``.

    Raises:
        BadInputError: If the folder is no run, its configuration is damaged or names what may not be imported, or a
            word sets something else.
    """
    settings, opened = sorted_words(words)
    check_opened(opened)
    path = config_file(run)
    tree = config_of_run(run)
    try:
        model = made(checked_section(tree, opened), settings, opened)
        model.check()
    except BadInputError as error:
        raise BadInputError(
            error.what, where=f"{path}: {error.where}", expected=error.expected, hint=error.hint
        ) from error
    except (ArgumentError, TypeError, ValueError) as error:
        raise BadInputError(
            " ".join(str(error).split())[:MOST_LETTERS], where=str(path), expected="a model as this version writes it"
        ) from error
    return model


def checked_section(tree: Mapping[str, Any], opened: Sequence[str]) -> Mapping[str, Any]:
    """Returns the interpolated section ``model`` of a run's configuration.

    Raises:
        BadInputError: If there is a key that no configuration has, no such section, or a class in it that may not be
            imported.
    """
    unknown = [key for key in tree if key not in TOP_LEVEL_KEYS]
    if unknown:
        raise BadInputError("unknown key", where=f"{unknown[0]:.60}", expected=", ".join(TOP_LEVEL_KEYS))
    check_class_paths(tree.get(MODEL), opened, MODEL)
    section = interpolated(tree).get(MODEL)
    check_class_paths(section, opened, MODEL)
    if not isinstance(section, Mapping):
        raise BadInputError("there is no model in it", where=MODEL, expected="a run's resolved configuration")
    return section


def made(section: Mapping[str, Any], settings: list[str], opened: Sequence[str]) -> TuningModule:
    """Returns the model that a section describes, with the command line's settings on top."""
    parser = ArgumentParser(**PARSER, allow_abbrev=False)
    with only_allowed_imports(opened):
        parser.add_class_arguments(TuningModule, MODEL, fail_untyped=False)
        parsed = parser.parse_object({MODEL: section}, env=False)
        if settings:
            parsed = parser.parse_args(settings, namespace=parsed)
        refuse_functions(parsed)
        model: TuningModule = parser.instantiate(parsed)[MODEL]
    return model


def sorted_words(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Returns settings of the model as single words, and the packages that are opened.

    Raises:
        BadInputError: If a word is neither, or its value is missing.
    """
    settings, opened = [], []
    rest = iter(words)
    for word in rest:
        flag, has_value, text = word.partition("=")
        value = text if has_value else next(rest, None)
        if flag.startswith("--") and (value is None or (not has_value and value.startswith("--"))):
            raise BadInputError("a value is missing", where=f"command line: {flag}", expected=f"{flag} VALUE")
        if flag == IMPORT_FLAG:
            opened.append(str(value))
        elif flag.startswith(f"--{MODEL}."):
            parts = [part for part in flag.split(".") if part != ARGUMENTS]
            settings.append(f"{'.'.join(parts)}={value}")
        else:
            raise BadInputError(
                f"{flag!r:.60} is not known here",
                where="command line",
                expected=f"this verb's own flags, --{MODEL}.KEY VALUE, {IMPORT_FLAG} PACKAGE",
            )
    return settings, tuple(opened)


def template_in(component: Any) -> Any:  # noqa: ANN401  (whatever a run's configuration holds)
    """Returns the template that a set's configuration names; None if it names none."""
    arguments = component.get(ARGUMENTS) if isinstance(component, dict) else None
    return arguments.get("template") if isinstance(arguments, dict) else None


def template_of_run(run: Path) -> Template:
    """Returns the template that a run's first evaluation set is asked in, or the one it was tuned with.

    Raises:
        BadInputError: If neither says one, or its file is missing or holds none.
    """
    tree = interpolated(config_of_run(run))
    sets = tree.get("benchmarks")
    name = template_in(sets[0] if isinstance(sets, list) and sets else {})
    if name is None and (run / ADAPTER).is_dir():
        config = read_adapter_config(run / ADAPTER)
        if CONTENT in config and (tuned_in := adapter_template(config, str(run / ADAPTER / ADAPTER_CONFIG))):
            return tuned_in  # a prompt's words are in it
        name = config.get("template")
        if name is not None and not is_known(str(name)):  # the adapter does not know where the file lies
            name = template_in(tree.get("data")) or name
    if name is None:
        raise BadInputError("the run does not say its template", where=str(run), expected="template=NAME")
    template, prompt = template_named(str(name)), tree.get(PROMPT_TEXT)
    return template if prompt is None else read_prompt(Path(str(prompt))).on(template)
