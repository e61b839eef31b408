"""What of a run goes to the hub, and what is looked at before anything does; nothing here uses a network."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_m2pt.application.card_licence import LICENCE_NAME, licence_of, with_licence
from lightning_m2pt.application.leaks import refuse_leaks
from lightning_m2pt.application.private_sets import private_set_names
from lightning_m2pt.backbones.origins.made import origin_in
from lightning_m2pt.backbones.origins.said import AT_COMMIT, REPOSITORY
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.runs.loading import evaluated_adapter
from lightning_m2pt.storage.adapter_folder import CARD_FILE, CONFIG_FILE, TENSOR_FILE, read_adapter_config
from lightning_m2pt.storage.adapter_manifest import check_tensor_file
from lightning_m2pt.storage.run_record import RECORD_FILE, is_unfinished, read_run_record

ADAPTER_FILES = (CONFIG_FILE, TENSOR_FILE, CARD_FILE)
"""All that is sent and all that is fetched."""
SELF_CONTAINED = 3
"""The first format of an adapter that says its base, template and pictures."""
SHOWN_OF_FINGERPRINT = 15
LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header."""


@dataclass(frozen=True)
class Publication:
    """An adapter as it is sent.

    Attributes:
        adapter: The adapter's folder.
        config: The text of its configuration.
        card: The model card, with its licence.
        licence: The licence.
        notes: What a reader of it will need, or should know.
        private_sets: The run's sets of a person's own.
    """

    adapter: Path
    config: str
    card: str
    licence: str
    notes: tuple[str, ...]
    private_sets: frozenset[str]

    def sizes(self) -> dict[str, int]:
        """Returns the bytes of every file by its name."""
        texts = {CONFIG_FILE: self.config, CARD_FILE: self.card}
        tensors = {TENSOR_FILE: (self.adapter / TENSOR_FILE).stat().st_size}
        return {name: len(texts[name].encode()) if name in texts else tensors[name] for name in ADAPTER_FILES}

    def texts(self) -> dict[str, str]:
        """Returns all text in the files by their names; of the tensors it is what stands before their numbers."""
        return {
            CONFIG_FILE: self.config,
            TENSOR_FILE: header_text(self.adapter / TENSOR_FILE),
            CARD_FILE: self.card,
        }

    def staged(self, folder: Path) -> dict[str, Path]:
        """Returns the files by their names in the repository: the texts as they were looked at, and the tensors.

        Args:
            folder: Where the texts are written; the run itself stays as it is.

        Raises:
            BadInputError: If the tensors have become others since.
        """
        check_tensor_file(self.adapter / TENSOR_FILE, json.loads(self.config))
        files = {name: folder / name for name in (CONFIG_FILE, CARD_FILE)}
        files[CONFIG_FILE].write_text(self.config, encoding="utf-8")
        files[CARD_FILE].write_text(self.card, encoding="utf-8")
        return {name: files.get(name, self.adapter / name) for name in ADAPTER_FILES}


def publication(source: Path, name: str, licence: str | None, allowed: Collection[str]) -> Publication:
    """Reads and checks what would be sent.

    Args:
        source: A run's folder, or an adapter's.
        name: The repository, ``owner/name``; both words may stand in the files.
        licence: The licence; None takes the one that the card names.
        allowed: Names of sets, users and machines that may stand in the files.

    Raises:
        BadInputError: If there is no whole adapter, no licence, or something in the files is private.
    """
    adapter, run = adapter_and_run(source)
    config = read_adapter_config(adapter)
    text = (adapter / CONFIG_FILE).read_text(encoding="utf-8")
    check_tensor_file(adapter / TENSOR_FILE, config)
    card = card_of(adapter)
    chosen = licence or licence_of(card)
    if chosen is None or not LICENCE_NAME.fullmatch(chosen):
        raise BadInputError(
            "the card names no licence" if chosen is None else f"{chosen!r:.60} is no licence's short name",
            where="command line: --license",
            expected="a short name of the hub's list, such as apache-2.0, cc-by-nc-4.0 or other",
            hint="the licences of base and data bind you, too",
        )
    made = Publication(
        adapter,
        text,
        of_repository(with_licence(card, chosen), name),
        chosen,
        tuple(notes_for_readers(config, read_run_record(run) if run is not None else {})),
        frozenset(private_set_names(run)),
    )
    refuse_leaks(made.texts(), made.private_sets, [*allowed, *name.split("/")])
    return made


def adapter_and_run(source: Path) -> tuple[Path, Path | None]:
    """Returns an adapter's folder and the run that it is of; None for an adapter by itself.

    Raises:
        BadInputError: If there is no such folder.
    """
    if not source.is_dir():
        raise BadInputError(
            f"{source} is {'a file' if source.exists() else 'not there'}",
            where="command line: RUN",
            expected="a run's folder, or an adapter's",
        )
    if (source / CONFIG_FILE).is_file():
        run = source.absolute().parent
        return source, run if (run / RECORD_FILE).is_file() else None
    return evaluated_adapter(source), source


def card_of(adapter: Path) -> str:
    """Returns the text of an adapter's card.

    Raises:
        BadInputError: If there is none, or it is no text.
    """
    try:
        return (adapter / CARD_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            "the adapter has no card that can be read",
            where=str(adapter / CARD_FILE),
            expected="the model card that tuning wrote",
        ) from error


def of_repository(card: str, name: str) -> str:
    """Returns a card whose lines that load the adapter name its repository where they named its folder."""
    loads = card.replace('load("ADAPTER"', f'load("{name}", fetch=True')
    return loads.replace("`ADAPTER` is this folder", f"`{name}` is this repository")


def header_text(path: Path) -> str:
    """Returns the header of a safetensors file, which names its tensors and may hold texts of anybody's."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        return file.read(length).decode(errors="replace")


def notes_for_readers(config: Mapping[str, Any], record: dict[str, Any]) -> list[str]:
    """Returns what whoever loads an adapter will need or should know.

    Args:
        config: The adapter's configuration.
        record: The run's record; empty if there is none.
    """
    notes = []
    origin, fingerprint = origin_in(config, CONFIG_FILE), str(config.get("base_fingerprint"))[:SHOWN_OF_FINGERPRINT]
    if config["format"] < SELF_CONTAINED:
        notes.append(
            f"an adapter of format {config['format']} does not say its base: its reader needs base=..., "
            f"with fingerprint {fingerprint}"
        )
    elif origin.kind == "files":
        notes.append(
            "its base is files that only their content names: its reader needs the same ones, base=..., "
            f"with fingerprint {fingerprint}"
        )
    places = [value for value in origin.arguments.values() if isinstance(value, dict) and REPOSITORY in value]
    for place in {each[REPOSITORY]: each for each in places}.values():
        notes.append(f"its reader needs the base: m2pt models fetch {place[REPOSITORY]} --revision {place[AT_COMMIT]}")
    if is_unfinished(record):
        notes.append("tuning was stopped before its last step: the command that began it goes on with it")
    return notes
