"""Words of a command that takes a file of the user's own in the place of an experiment's sets."""

import argparse
from typing import Any

from typing_extensions import override

from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.console import VerbParser

FILE_WORDS = """\
FILE is a file or folder of your own, or hub:OWNER/NAME: conversations to tune on, or questions with --rule. --config
then names the model. --data.KEY VALUE sets how it is read: --data.image_root DIR, --data.columns '{image: path}'."""


class FileParser(VerbParser):
    """Takes one word without dashes that is no setting's value for ``file``; settings stay for the experiment.

    argparse itself would take the value of the first setting for it.
    """

    @override
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses the command's own flags; ``file`` is None where none is given."""
        own, rest = super().parse_known_args(list(args), namespace)
        files, settings = [], []
        words = iter(rest)
        for word in words:
            if not word.startswith("-"):
                files.append(word)
                continue
            settings.append(word)
            if "=" not in word:
                settings += [following for following in [next(words, None)] if following is not None]
        if len(files) > 1:
            raise BadInputError(
                f"{files[1]!r:.60} is a second file", where="command line", expected="one file, or --KEY VALUE"
            )
        own.file = files[0] if files else None
        return own, settings


def add_file_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how a file of one's own is read."""
    parser.add_argument("--rule", metavar="NAME", help="FILE holds questions to evaluate, scored by this rule")
    parser.add_argument(
        "--template",
        metavar="NAME",
        help="conversation template of FILE (default: the experiment's; native: the model's)",
    )
