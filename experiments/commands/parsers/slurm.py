"""``m2pt slurm``: jobs on a cluster: submit one or a whole sweep, see where they stand, read along, cancel.

  m2pt slurm submit experiments/m2pt_vicuna7b.yaml --gpus-per-node 4     train and evaluate on four GPUs
  m2pt slurm submit ablation --time 2:00:00 --at-a-time 8                a sweep as an array of jobs
  m2pt slurm status                                                      states, restarts, steps
  m2pt slurm logs 4711 -f                                                read along
  m2pt slurm cancel 4711

A job that its time limit or another job pushes out saves, goes back into the queue by itself and goes on from there.
docs/scale.md tells about strategies and clusters.
"""

import argparse
from pathlib import Path

from lightning_m2pt.system.console import VerbParser

DEFAULT_OUTPUT_ROOT = Path("outputs")
LINES = 40
SUBMIT = """Submit an experiment, a sweep as an array, or the evaluation of a run (its folder).

Everything that can be known without weights is checked first. Further words `--KEY VALUE` go to the verb, as in
--trainer.max_steps 1000. --dry-run writes the script, needs no SLURM, and what it writes can be submitted by hand.

  m2pt slurm submit experiments/m2pt_vicuna7b.yaml --nodes 2 --gpus-per-node 8 --strategy fsdp --time 12:00:00
  m2pt slurm submit outputs/m2pt_vicuna7b/RUN --gpus-per-node 4 --verb evaluate
  m2pt slurm submit comparison --no-search --at-a-time 4 --dry-run
"""
AFTER = """What a job's script calls when `m2pt` has ended in it; nobody needs to.

With 138 (warned before the time limit) or 143 (preempted) the job goes back into the queue, at most 20 times and only
as long as it gets on; with anything else the code is noted. It is this command's exit code, too.
"""


def argument_parser() -> VerbParser:
    """Returns the verb's flags: those of its commands."""
    parser = VerbParser(
        prog="m2pt slurm",
        description=__doc__,
        epilog="m2pt slurm NAME --help tells about one of them",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        takes_settings=True,  # of `submit`; the other commands refuse what they do not know themselves
    )
    parser.add_commands(
        "command",
        {
            "submit": (submit_parser, "submit an experiment, a sweep, or the evaluation of a run"),
            "status": (status_parser, "say where the jobs stand that were submitted from here"),
            "logs": (logs_parser, "show what a job has written"),
            "cancel": (cancel_parser, "cancel jobs that were submitted from here; what they did is kept"),
            "after": (after_parser, "what a job's script calls when m2pt has ended in it"),
        },
    )
    return parser


def parser_of_command(name: str, description: str, *, takes_settings: bool = False) -> VerbParser:
    """Returns the parser of a command with the flag that all of them have."""
    parser = VerbParser(
        prog=f"m2pt slurm {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        takes_settings=takes_settings,
    )
    parser.add_argument("--output_root", type=Path, metavar="DIR", help="folder of all runs (default: outputs)")
    return parser


def submit_parser() -> VerbParser:
    """Returns the flags of ``m2pt slurm submit``."""
    parser = parser_of_command("submit", SUBMIT, takes_settings=True)
    add = parser.add_argument
    add("target", metavar="FILE", help="an experiment's or a sweep's file or name, or a run's folder")
    add("--verb", choices=("train", "fit", "evaluate"), default="", help="default: train; evaluate for a run's folder")
    add(
        "--strategy",
        default="",
        metavar="NAME",
        help="a file of experiments/strategies (default: ddp, if it is needed)",
    )
    add("--backbone", default="", metavar="NAME", help="of a sweep: another file of experiments/backbones")
    add("--no-search", action="store_true", help="of a sweep: take the learning rates of the files")
    add("--at-a-time", type=int, default=0, metavar="N", help="of a sweep: cells at a time (default: all)")
    add("--nodes", type=int, default=1, metavar="N", help="nodes (default: %(default)s)")
    add("--gpus-per-node", "--gpus", metavar="N", help="or TYPE:N (default: 1, or 0 if the experiment is for the CPU)")
    add("--tasks-per-node", type=int, metavar="N", help="processes (default: one for every GPU)")
    add("--cpus-per-task", type=int, metavar="N", help="cores of a process (default: 8, or 1 without GPUs)")
    add("--time", default="24:00:00", help="time limit, as SLURM writes it (default: %(default)s)")
    add(
        "--signal-seconds",
        type=int,
        default=90,
        metavar="S",
        help="how long before the limit a job is warned: longer than a step and a checkpoint (default: %(default)s)",
    )
    for name, help_text in (
        ("partition", "as of sbatch; the next ones, too"),
        ("account", ""),
        ("qos", ""),
        ("constraint", ""),
        ("mem", "memory a node, such as 64G"),
    ):
        add(f"--{name}", default="", metavar=name.upper(), help=help_text)
    add("--sbatch", action="append", default=[], metavar="OPTION", help="one more option, as in --sbatch=--exclusive")
    add("--job-name", default="", metavar="NAME", help="default: the file's name")
    add("--dry-run", action="store_true", help="write the script to standard output and submit nothing")
    return parser


def status_parser() -> VerbParser:
    """Returns the flags of ``m2pt slurm status``."""
    parser = parser_of_command("status", "Say where the jobs stand that were submitted from here.")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="only these (default: all)")
    return parser


def logs_parser() -> VerbParser:
    """Returns the flags of ``m2pt slurm logs``."""
    parser = parser_of_command("logs", "Show the end of what a job has written.")
    parser.add_argument("job", metavar="JOB", help="its number; of an array with the element's, as in 4711_3")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as it is written, until Ctrl-C")
    parser.add_argument("--lines", type=int, default=LINES, metavar="N", help="how many (default: %(default)s)")
    return parser


def cancel_parser() -> VerbParser:
    """Returns the flags of ``m2pt slurm cancel``."""
    parser = parser_of_command(
        "cancel", "Cancel jobs that were submitted from here, and say which. They save before they end."
    )
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="numbers, of arrays or their elements, or `all`")
    return parser


def after_parser() -> VerbParser:
    """Returns the flags of ``m2pt slurm after``."""
    parser = parser_of_command("after", AFTER)
    parser.add_argument("code", type=int, metavar="CODE", help="what m2pt has ended with")
    return parser


PARSERS = {
    "submit": submit_parser,
    "status": status_parser,
    "logs": logs_parser,
    "cancel": cancel_parser,
    "after": after_parser,
}
