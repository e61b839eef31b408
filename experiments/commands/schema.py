"""Runs ``m2pt schema``; its flags and what it is for are in ``parsers``."""

import json
import sys
from collections.abc import Sequence

from experiments.commands.parsers.schema import argument_parser
from experiments.configuration.stored_description import keep_schema, stored_schema
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.system.atomic_files import write_atomically
from lightning_m2pt.system.console import say


def main(arguments: Sequence[str]) -> int:
    """Runs the verb.

    Raises:
        BadInputError: If the output is a folder.
    """
    own = argument_parser().parse_args(list(arguments))
    if own.output is not None and own.output.is_dir():
        raise BadInputError("this is a folder", where="command line: --output", expected="a file for the schema")
    keep_schema()
    schema = stored_schema()
    if schema is None:  # there is no place to keep it
        from experiments.configuration.description import experiment_schema

        schema = experiment_schema()
    text = json.dumps(schema, indent=1) + "\n"
    if own.output is None:
        sys.stdout.write(text)
    else:
        own.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(own.output, text.encode())
        say(f"schema: {own.output}")
    return ExitCode.DONE
