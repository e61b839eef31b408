"""The script of a job: pure text, which ``--dry-run`` shows and ``sbatch`` takes.

A template of our own and no library: a job is one command under ``srun``, and what follows it is decided in ``stops``.
A person can read the whole script, change it and submit it by hand.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.cluster.records import BY_ITSELF
from lightning_m2pt.errors import BadInputError
from lightning_m2pt.system.slurm_job import STOPPED_AND_SAVED

LEFT_OVER = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"),
)
"""Variables of the shell that submits, which would number the processes, or let two jobs of a node share a port.

Without MASTER_PORT Lightning takes one that follows from the job's number.
"""
UNFIT_IN_A_PATTERN = re.compile(r'["\\%\x00-\x1f\x7f]')
CONTROL = re.compile(r"[\x00-\x1f\x7f]")

SCRIPT = """\
#!/usr/bin/env bash
# {title}
{options}

set -uo pipefail
cd {folder} || exit 3
export PYTHONPATH={checkout}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1
{exports}export OMP_NUM_THREADS={threads}
unset {left_over}
{words}
m2pt=({interpreter} -m lightning_m2pt.main)

srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 "${{m2pt[@]}}" "$@" \\
  --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE"
# {stopped}: warned before the time limit, or preempted; saved. Then the job goes back into the queue, once for every
# stop and as long as it gets on. Everything else ends the job with its own exit code.
"${{m2pt[@]}}" slurm after "$?" --output_root {output_root}
exit "$?"
"""


def job_script(
    title: str,
    options: Sequence[str],
    words: Mapping[str, Sequence[str]],
    folder: Path,
    checkout: Path,
    interpreter: str,
    output_root: Path,
    variables: Mapping[str, str],
) -> str:
    """Returns a job's script.

    Args:
        title: The first comment.
        options: Of sbatch, one word each.
        words: What stands behind ``m2pt``, by the number of an array's element; by an empty text for a job by itself.
        folder: The working directory.
        checkout: Where the project's modules are found, from whatever folder.
        interpreter: Absolute path of the Python that is to run.
        output_root: Where the submission is recorded.
        variables: What else is exported, whatever the cluster hands on of the submitting shell.

    Raises:
        BadInputError: If a word or path cannot stand in a script.
    """
    of_cells = [word for of_cell in words.values() for word in of_cell]
    places = map(str, (folder, checkout, interpreter, output_root))
    for text in (title, *options, *places, *of_cells, *variables.values()):
        refuse_control_characters(text)
    return SCRIPT.format(
        title=title,
        options="\n".join(f"#SBATCH {quoted_option(option)}" for option in options),
        folder=shlex.quote(str(folder)),
        checkout=shlex.quote(str(checkout)),
        exports="".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()),
        interpreter=shlex.quote(interpreter),
        threads='"${OMP_NUM_THREADS:-1}"' if set(words) == {BY_ITSELF} else "1",  # as a sweep sets it for its cells
        left_over=" ".join(LEFT_OVER),
        words=chosen_words(words),
        stopped=", ".join(map(str, STOPPED_AND_SAVED)),
        output_root=shlex.quote(str(output_root)),
    )


def chosen_words(words: Mapping[str, Sequence[str]]) -> str:
    """Returns the lines that make a job's words the script's arguments."""
    if set(words) == {BY_ITSELF}:
        return f"set -- {shlex.join(words[BY_ITSELF])}"
    cases = "\n".join(f"  {number}) set -- {shlex.join(of_cell)} ;;" for number, of_cell in words.items())
    return f'case "$SLURM_ARRAY_TASK_ID" in\n{cases}\n  *) exit 2 ;;\nesac'


def quoted_option(option: str) -> str:
    """Returns an option as an ``#SBATCH`` line takes it: there ``'`` opens quotes, and ``#`` ends the line."""
    name, _, value = option.partition("=")
    return f'{name}="{value}"' if re.search(r"[ '#]", value) else option


def refuse_control_characters(text: str) -> None:
    """Refuses a line break and its like, which would end a line of the script.

    Raises:
        BadInputError: If there is one.
    """
    if CONTROL.search(text):
        raise BadInputError(
            f"{text!r:.60} has a line break or another control character",
            where="command line",
            expected="words of one line",
            hint="put the value into a configuration file, and name that",
        )


def check_pattern(path: Path) -> None:
    """Refuses a folder whose name would be a pattern of SLURM, or end the quotes around it.

    Raises:
        BadInputError: If it is one.
    """
    if UNFIT_IN_A_PATTERN.search(str(path)):
        raise BadInputError(
            "this folder's name means something else to SLURM",
            where=str(path),
            expected='no %, ", \\ or control character in it',
            hint="--output_root DIR names another folder",
        )
