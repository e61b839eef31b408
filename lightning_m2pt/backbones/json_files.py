"""JSON files that strangers wrote."""

import json
from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError


def read_json(path: Path, key: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        BadInputError: If the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        guides = [folder / "README.md" for folder in path.parents[:2] if (folder / "README.md").is_file()]
        raise BadInputError(
            f"{path} cannot be read ({error.strerror})",
            where=key,
            expected="a JSON file",
            hint=f"{guides[0]} says how to get it" if guides else "",
        ) from error
    except (RecursionError, ValueError) as error:
        raise BadInputError(
            f"{path} is not JSON ({ascii(str(error))[1:-1]:.100})", where=key, expected="a JSON file"
        ) from error
    if not isinstance(content, dict):
        raise BadInputError(f"{path} holds no JSON object", where=key, expected="an object")
    return content
