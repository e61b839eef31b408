"""The map of the house in ``docs/design.md`` names the rooms there are, in the order of the contracts."""

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAP = (ROOT / "docs/design.md").read_text(encoding="utf-8").partition("## Decisions")[0]
ROWS = re.compile(r"^\| (`[^|]*) \| ([^|]+) \|$", re.MULTILINE)


def rooms_on_disk(folder: str) -> set[str]:
    """Folders with a file of ours somewhere below; caches are none."""
    inside = (ROOT / folder).iterdir()
    return {path.name for path in inside if path.is_dir() and path.name != "__pycache__" and any(path.iterdir())}


def rooms_on_map(folder: str) -> list[str]:
    """The rooms of the table below the folder's name, from the top to the bottom."""
    section = MAP.partition(f"**`{folder}/`**")[2].partition("\n**`")[0]
    return [name for cell, _ in ROWS.findall(section) for name in re.findall(r"`(\w+)`", cell)]


def layers(contract: str) -> list[set[str]]:
    setup = configparser.ConfigParser(comment_prefixes=("#",))
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return [set(line.split(" | ")) for line in setup[f"importlinter:contract:{contract}"]["layers"].split("\n") if line]


@pytest.mark.parametrize("folder", ["experiments", "lightning_m2pt"])
def test_the_map_has_every_room_once(folder: str) -> None:
    named = rooms_on_map(folder)
    assert sorted(named) == sorted(rooms_on_disk(folder))


@pytest.mark.parametrize(("folder", "contract"), [("experiments", "experiments"), ("lightning_m2pt", "library")])
def test_the_map_has_the_order_of_the_contract(folder: str, contract: str) -> None:
    order = {room: place for place, layer in enumerate(layers(contract)) for room in layer}
    places = [order[room] for room in rooms_on_map(folder) if room in order]
    assert places == sorted(places)
    in_no_layer = set(rooms_on_map(folder)) - set(order)
    assert not [room for room in in_no_layer if list((ROOT / folder / room).glob("*.py"))], "a room without a layer"


def test_the_smaller_houses_are_named() -> None:
    for folder in ("data_modules", "callbacks", "tests", "benchmarks"):
        assert f"**`{folder}/`**" in MAP
    for room in (*rooms_on_disk("benchmarks"), "bad_inputs", "project", "real", "support", "reading", "peer_formats"):
        assert f"`{room}`" in MAP
