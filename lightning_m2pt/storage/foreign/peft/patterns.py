"""The regular expressions in PEFT's configurations: matched as PEFT does, where that cannot take for ever.

Whoever writes an adapter writes them, and one can be made to run for years over a name. So a pattern is only run if it
has few repetitions and none of what repeats itself; of others it is said that they were not.
"""

import re

MOST_REPETITIONS = 3
LONGEST = 1000
REPETITION = re.compile(r"[*+?{]")
LITERAL = re.compile(r"\\.")
RISKY = re.compile(r"\)[*+?{]|\(\?[^:]|\\[1-9]")
"""A group that is repeated, anything but a plain group, and a reference to one."""


def may_run(pattern: str, most: int = MOST_REPETITIONS) -> bool:
    """Tells whether a regular expression is valid and takes no more than a small power of a name's length.

    Args:
        pattern: The expression.
        most: How many repetitions may be in it, none of them of a group.
    """
    bare = LITERAL.sub("x", pattern).replace("(?:", "(")
    if len(pattern) > LONGEST or RISKY.search(pattern.replace("(?:", "(")) or len(REPETITION.findall(bare)) > most:
        return False
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def names_layer(key: str, name: str) -> bool:
    """Tells whether a key of ``rank_pattern`` or ``alpha_pattern`` is of a layer, as PEFT decides it.

    Args:
        key: A regular expression that may run.
        name: The layer's name in the library's model.
    """
    return re.match(rf"(.*\.)?({key})$", name) is not None


def is_target(targets: str | list[str], name: str) -> bool:
    """Tells whether ``target_modules`` names a layer, as PEFT decides it.

    Args:
        targets: A regular expression that may run, or names and last steps.
        name: The layer's name in the library's model.
    """
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == each or name.endswith(f".{each}") for each in targets)
