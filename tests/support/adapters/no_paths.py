"""What travels says nothing of the machine it comes from."""

import getpass
import platform
from pathlib import Path


def paths_said(folder: Path, *private: str) -> list[str]:
    """Returns which places of this machine, or private words, stand in the bytes of a folder's files or their names.

    Args:
        folder: What travels.
        private: Words that must not be told, such as names of folders that were read from.
    """
    user = getpass.getuser() if getpass.getuser() != "root" else "/root/"  # the word stands in many texts
    words = [str(Path.home()) + "/", str(Path.cwd()), "/tmp/", platform.node() or "no host", user, *private]
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        found += [f"{path.name}: {word}" for word in words if word.encode() in content or word in path.name]
    return found
