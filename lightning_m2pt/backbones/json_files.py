"""JSON files that strangers wrote."""

from pathlib import Path
from typing import Any

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.strict_json import parse_json


def read_json(path: Path, key: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        BadInputError: If the file is missing or is not a JSON object.
    """
    try:
        content = parse_json(path.read_bytes(), path, expected="a JSON file", hint="copy or download the folder again")
    except OSError as error:
        guides = [folder / "README.md" for folder in path.parents[:2] if (folder / "README.md").is_file()]
        raise BadInputError(
            f"{path} cannot be read ({error.strerror})",
            where=key,
            expected="a JSON file",
            hint=f"{guides[0]} says how to get it" if guides else "",
        ) from error
    except BadInputError as error:
        raise BadInputError(
            f"{path} is not JSON ({error.what})", where=key, expected=error.expected, hint=error.hint
        ) from error
    if not isinstance(content, dict):
        raise BadInputError(f"{path} holds no JSON object", where=key, expected="an object")
    return content
