"""Turns a parser's complaint into three lines that name file, line, key and the nearest key there is.

jsonargparse says which key and why; the file's YAML tree says in which line it stands; difflib knows what was probably
meant.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import yaml

from experiments.configuration.composition import COMPONENTS, GROUPS, LISTS, list_of, same_class
from lightning_m2pt.configuration.allowed_imports import not_allowed
from lightning_m2pt.configuration.tree import ARGUMENTS, CLASS_PATH, TOP_LEVEL_KEYS
from lightning_m2pt.errors import BadInputError

KEYS_LISTED = 16
NO_WHOLE_NUMBER = "invalid literal for int() with base 10: "
"""What Python says before the text."""
A_TYPE = r"<class '[\w.]+'>|typing\.Literal\[[^\]]*\]"
CHOICE = re.compile(rf"Errors: ((?:Expected an? (?:{A_TYPE}) )+)Given value type: <class '\w+'> Given value: (\S+)")
"""Types of a union, none of which is a component, and the value that is of none."""
NO_TYPE_OF_SEVERAL = re.compile(
    r"Union subtypes (?:Subtypes: \[[^]]*\] )?Errors: ((?:Expected an? <class '[\w.]+'> )+)"
    r"Given value type: <class '\w+'> Given value: (.*?)(?= Given value|$)"
)
"""A parser's sentence, in one line, about a setting that takes one of several types."""
CLASS = r"\w+(\.(?!ya?ml$)\w+)*"
A_COMPONENT = "class_path: package.module.Class with init_args, as in the shipped files"


def keys_with_places(tree: yaml.Node, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields every dotted key of a tree with its ``FILE:LINE``, ``init_args`` left out as on the command line.

    Args:
        tree: The tree; what a part brought in names the part.
        key: The tree's own key.
    """

    def walk(node: yaml.Node, prefix: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = prefix if key.value == "init_args" else f"{prefix}.{key.value}".lstrip(".")
                yield name, f"{key.start_mark.name}:{key.start_mark.line + 1}"
                yield from walk(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                name = f"{prefix}.{class_name(item)}".rstrip(".")
                if name != prefix:
                    yield name, f"{item.start_mark.name}:{item.start_mark.line + 1}"
                yield from walk(item, name)

    yield from walk(tree, key)


def class_name(node: yaml.Node) -> str:
    """Returns the class an item of a list is made of, so that messages can tell items apart; empty if it says none."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "class_path":
                return str(value.value).rpartition(".")[2]
    return ""


def as_bad_input(error: Exception, trees: Sequence[tuple[str, yaml.Node]], words: list[str]) -> BadInputError:
    """Returns the three-line form of a parser's or constructor's error.

    Args:
        error: What was raised.
        trees: What files hold, later ones win, each with the key that it is the value of; and what words are written
            as mappings, lists or names of parts, which no mark gives a file.
        words: The command line.
    """
    own = innermost(error)
    complaint = (
        Complaint(own.where, own.what, own.expected, own.hint)
        if isinstance(own, BadInputError)
        else complaint_of(str(error))
    )
    return refusal_of(complaint, trees, words)


def refusal_of(complaint: "Complaint", trees: Sequence[tuple[str, yaml.Node]], words: list[str]) -> BadInputError:
    """Returns the error of a complaint, with the file and line of its key, or the command line."""
    return BadInputError(
        complaint.what,
        where=place_of(complaint.key, trees, words),
        expected=complaint.expected or "a value this key accepts",
        hint=complaint.hint,
    )


def innermost(error: BaseException) -> BaseException:
    """Follows the chain of causes to our own error, if there is one in it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BadInputError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return error


@dataclass(frozen=True)
class Complaint:
    """What a parser's message says, taken apart."""

    key: str
    what: str
    expected: str = ""
    hint: str = ""


def complaint_of(message: str) -> Complaint:
    """Takes a message of jsonargparse apart, as its version in the constraints file words them."""
    lines = [line.strip(" -") for line in message.splitlines() if "<class 'NoneType'>" not in line]
    text = " ".join(lines)
    keys = re.findall(r'Parser key "([^"]+)"', text)
    class_path = re.findall(r"given class_path '([^']+)'", text)
    if keys[:1] == ["benchmarks"] and class_path:
        keys[0] = f"benchmarks.{class_path[0].rpartition('.')[2]}"
    missing = re.search(r"(?:the following arguments are required: |Key ['\"])([\w.]+)", text)
    unknown = re.search(r"Option '([^']+)' is not accepted", text)
    group = re.search(r"Group '([^']+)' does not accept option '([^']+)'", text)
    unrecognised = re.search(r"unrecognized arguments?: -*([^\s=]+)", text)
    wrong = re.search(r"Expected an? (.+?)\. Got value: (.*?)(?: (?:Given value|Expected an? )|$)", text)
    choice = CHOICE.search(" ".join(line.strip(" -") for line in message.splitlines()))
    other_class = re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", text)
    no_component = re.search(r"Not a valid subclass of (\w+)\. Got value: (.*?) Subclass types expect", text)
    restricted = re.search(r"Not of type \w+: (.+?) does not conform to restriction (.+?)(?: Given value|$)", text)
    no_number = re.search(r"Not of type \w+: (.+)$", text)
    short = re.search(r"Expected a dot import path string: (\w+)", text)
    denied = re.search(r"Importing '([^']+)' is not allowed", text)
    if denied:
        error = not_allowed(denied.group(1), ".".join(keys))
        return Complaint(error.where, error.what, error.expected, error.hint)
    if missing and "required" in text:
        key = ".".join([*keys, missing.group(1)])
        return Complaint(key, "this key is missing", "a value", "a shipped experiment shows how it looks")
    if unknown:
        return unknown_key([*keys, unknown.group(1)], class_path[-1] if class_path else "")
    if group:
        inside = group.group(2).split(".")
        is_group = f"{group.group(1)}.{inside[0]}" in GROUPS
        return unknown_key([group.group(1), *inside[: 1 + is_group]], "")
    if unrecognised:
        return unknown_key(unrecognised.group(1).split("."), "")
    if other_class:
        return Complaint(".".join(keys), f"{other_class.group(1)} is no {other_class.group(2)}", A_COMPONENT)
    if no_component:
        return Complaint(".".join(keys), f"{no_component.group(2)[:60]} is no {no_component.group(1)}", A_COMPONENT)
    if restricted:
        limits = restricted.group(2).replace("v", "")
        return Complaint(".".join(keys), f"{restricted.group(1)[:40]} is out of range", f"a whole number {limits}")
    if no_number:
        reason = no_number.group(1).removeprefix(NO_WHOLE_NUMBER).removesuffix(" not a number")
        return Complaint(".".join(keys), f"{reason[:60]} does not fit", "a whole number")
    if short:
        return Complaint(".".join(keys), f"no class of this kind is called {short.group(1)}", A_COMPONENT)
    if several := NO_TYPE_OF_SEVERAL.findall(text):
        types, value = several[-1]  # the innermost
        return Complaint(
            ".".join(keys),
            f"{value[:80]!r} does not fit",
            " or ".join(sorted(re.findall(r"<class '([\w.]+)'>", types))),  # their order is not always the same
        )
    if choice and "typing.Literal" in choice.group(1):
        return Complaint(".".join(keys), f"{choice.group(2)[:80]!r} does not fit", readable_choice(choice.group(1)))
    if wrong:
        return Complaint(".".join(keys), f"{wrong.group(2)[:80]!r} does not fit", readable_type(wrong.group(1)))
    if class_path and "has no attribute" in text:
        return Complaint(".".join(keys), f"there is no class {class_path[-1]}", "a class path as in the shipped files")
    return Complaint(".".join(keys), text.split(":", 1)[-1].strip()[:200])


def check_top_level(names: Iterable[str]) -> None:
    """Looks at an experiment's first keys; the parser would take its own beside them.

    Raises:
        BadInputError: At the first unknown one.
    """
    for name in names:
        if name not in TOP_LEVEL_KEYS:
            complaint = unknown_key([name], "")
            raise BadInputError(complaint.what, where=name, expected=complaint.expected, hint=complaint.hint)


def unknown_key(parts: list[str], class_path: str) -> Complaint:
    """Returns the complaint about a key that does not exist, with the nearest one that does."""
    from experiments.configuration.schema import accepted_names  # reads signatures, and needs torch for it

    *groups, leaf = ".".join(parts).replace(".init_args", "").split(".")
    component = next((each for each in COMPONENTS if ".".join(groups).startswith(f"{each}.")), None)
    if component is not None:
        outer, accepted = groups[component.count(".") + 1], accepted_names(component, class_path)
        if outer not in accepted:  # what the key stands in is what does not exist
            return unknown_key_among(component.split("."), outer, accepted)
    return unknown_key_among(groups, leaf, accepted_names(".".join(groups), class_path))


def unknown_key_among(groups: list[str], leaf: str, accepted: list[str]) -> Complaint:
    """Returns the complaint about a key that does not exist.

    Args:
        groups: What it stands in.
        leaf: Its name.
        accepted: The keys that exist there.
    """
    near = difflib.get_close_matches(leaf, accepted, n=1)
    listed = ", ".join(accepted) if len(accepted) <= KEYS_LISTED else f"one of its {len(accepted)} keys"
    listed = listed or "a key that it accepts"
    return Complaint(
        ".".join([*groups, leaf]),
        "unknown key",
        listed,
        f"did you mean {near[0]}?" if near else "`m2pt fit --help` lists all keys",
    )


def readable_type(text: str) -> str:
    """Returns a type as people write it: ``int``, ``'cosine' or 'linear'``."""
    named = re.fullmatch(r"<class '(?:builtins\.)?([\w.]+)'>", text)
    literal = re.fullmatch(r"typing\.Literal\[(.+)\]", text)
    return named.group(1) if named else " or ".join(literal.group(1).split(", ")) if literal else text


def readable_choice(text: str) -> str:
    """Returns the types of a union as people write them, named values first and null last."""
    types = [readable_type(each) for each in re.findall(A_TYPE, text)]
    types.sort(key=lambda each: (each == "NoneType", not each.startswith("'"), each))  # theirs is not always the same
    return " or ".join(types).replace("NoneType", "null").replace("bool", "true or false")


def place_of(key: str, trees: Sequence[tuple[str, yaml.Node]], words: list[str]) -> str:
    """Returns where the nearest key that was written stands: ``FILE:LINE: key``, or ``command line: key``.

    Of two that are as near, the later one decided: the command line after the files, and those in order. What stands
    under a component's former class counts no more.
    """
    plain = re.sub(r"\.init_args\b", "", key)
    first, _, rest = plain.partition(".")
    of_every_item = f"{first}.{rest.partition('.')[2]}"  # --benchmarks.batch_size stands for benchmarks.MME.batch_size
    places: list[tuple[int, str]] = []
    of_words: list[tuple[int, str]] = []  # what stands in parts that words name
    component = next((each for each in COMPONENTS if leads_to(each, plain)), "")
    named = ""
    for own_key, tree in trees:
        found = dict(keys_with_places(tree, own_key))
        inside = [(name, place) for name, place in found.items() if leads_to(name, plain) and not place.startswith(":")]
        if own_key:
            depths = [plain.count(".") if own_key in LISTS else name.count(".") for name, _ in inside]
            of_words += [(depth, f"{place}: {plain}") for depth, (_, place) in zip(depths, inside, strict=True)]
            continue
        if list_of(plain) in found:  # a later list takes the place of an earlier one
            places.clear()
        if component and (class_path := class_in(tree, component)):
            if named and not same_class(named, class_path):
                places = [(depth, place) for depth, place in places if depth < component.count(".")]
            named = class_path
        places += [(name.count("."), f"{place}: {plain}") for name, place in inside]
    for word, following in zip(words, [*words, ""][1:], strict=True):
        flag = word.partition("=")[0].removeprefix("--").replace(f".{ARGUMENTS}", "").removesuffix(f".{CLASS_PATH}")
        if not word.startswith("--") or not plain or flag == "config":
            continue
        if flag.rstrip("+") in (plain, of_every_item):
            return f"command line: {flag.rstrip('+')}"
        given = word.partition("=")[2] or following
        if flag == component and named and re.fullmatch(CLASS, given) and not same_class(named, given):
            places = [(depth, place) for depth, place in places if depth < component.count(".")]
        if leads_to(flag.rstrip("+"), plain):  # a list is replaced as a whole
            places.append((plain.count(".") if flag in LISTS else flag.count("."), f"command line: {plain}"))
    places += of_words
    nearest = max((depth for depth, _ in places), default=0)
    return next((place for depth, place in reversed(places) if depth == nearest), plain or "command line")


def class_in(tree: yaml.Node, component: str) -> str:
    """Returns the class that a file names for a component; empty if it names none."""
    found: yaml.Node | None = tree
    for key in [*component.split("."), CLASS_PATH]:
        if isinstance(found, yaml.ScalarNode) and key == CLASS_PATH:
            break  # the class alone
        values = found.value if isinstance(found, yaml.MappingNode) else []
        found = next((value for name, value in values if name.value == key), None)
    return str(found.value) if isinstance(found, yaml.ScalarNode) else ""


def leads_to(name: str, key: str) -> bool:
    """Tells whether a dotted key is another one, or a group or list that holds it."""
    return f"{key}.".startswith(f"{name}.")
