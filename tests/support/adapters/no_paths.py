"""What travels says nothing of the machine it comes from."""

import getpass
import platform
import re
from pathlib import Path

IN_EVERY_TEXT = ("root",)
"""Names of users that are words."""


def paths_said(folder: Path, *private: str) -> list[str]:
    """Returns which places of this machine, or private words, stand in the bytes of a folder's files or their names.

    Names of user and machine may be two letters, which stand in any numbers by chance: they are looked for in texts.

    Args:
        folder: What travels.
        private: Words that must not be told, such as names of folders that were read from.
    """
    words = [str(Path.home()) + "/", str(Path.cwd()), "/tmp/", *private]
    names = [name for name in (getpass.getuser(), platform.node()) if name and name not in IN_EVERY_TEXT]
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found += [f"{path.name}: {word}" for word in words if word.encode() in content or word in path.name]
        text = "" if path.suffix == ".safetensors" else content.decode()
        found += [f"{path.name}: {name}" for name in names if re.search(rf"\b{re.escape(name)}\b", text)]
    return found
