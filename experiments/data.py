"""``m2pt data``: data sets by name; ``m2pt data testbed`` renders the embedded testbed."""

from collections.abc import Sequence

from experiments.console import VerbParser


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    parser = VerbParser(prog="m2pt data", description=__doc__)
    parser.add_argument("name", choices=["testbed"], help="testbed: Vision-Flan, MME, VSR, POPE, CIFAR-10, MNIST forms")
    parser.parse_args(list(arguments)[:1])
    from experiments.testbed import testbed

    return testbed.main(list(arguments)[1:])
