"""Runs ``m2pt data testbed``; its flags and what it is for are in ``parsers``."""

from collections.abc import Sequence

from experiments.commands.parsers.data_testbed import argument_parser
from experiments.testbed.prompting_render import render_prompting
from experiments.testbed.render import render_testbed
from lightning_m2pt.errors import BadInputError, ExitCode


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Raises:
        BadInputError: If the root is a file, or the seed negative.
    """
    options = argument_parser().parse_args(list(arguments))
    if options.seed < 0:
        raise BadInputError("the seed is negative", where="command line: --seed", expected="0 or more")
    if options.root.exists() and not options.root.is_dir():
        raise BadInputError(f"{options.root} is not a folder", where="command line: --root", expected="a folder")
    renders = render_prompting if options.prompting else render_testbed
    renders(options.root, options.seed, force=options.force)
    return ExitCode.DONE
