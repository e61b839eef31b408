"""Runs ``m2pt slurm``; its flags and what it is for are in ``parsers``."""

import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.cluster.records import Submission, folder_of, submission_of, submissions, write_submission
from experiments.cluster.slurm_commands import asked, queued, require
from experiments.cluster.status import is_same, status_table, statuses
from experiments.cluster.stops import after
from experiments.commands.parsers.slurm import DEFAULT_OUTPUT_ROOT, PARSERS
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.main import quieten_libraries
from lightning_m2pt.system.console import OUT, say, short_path

ALL = "all"


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    name, *words = arguments
    parser = PARSERS[name]()
    own, rest = parser.parse_known_args(words)
    if rest and not parser.takes_settings:
        raise BadInputError(f"unknown argument {rest[0]!r:.60}", where="command line", expected="see --help")
    root = own.output_root or DEFAULT_OUTPUT_ROOT
    if name == "submit":
        return submit(own, rest, root, arguments)
    if name == "status":
        return show_status(own.jobs, root)
    if name == "logs":
        return show_log(own.job, root, own.lines, follow=own.follow)
    if name == "cancel":
        return cancel(own.jobs, root)
    said = after(own.code, root, os.environ)
    if said:
        say(said)
    return int(own.code)


def submit(own: Namespace, rest: Sequence[str], root: Path, arguments: Sequence[str]) -> int:
    """Checks and submits; with ``--dry-run`` writes the script instead."""
    from experiments.cluster.planned import Wanted, plan
    from experiments.cluster.resources import Resources, gpus_in
    from experiments.cluster.submission import draft, submitted

    quieten_libraries()  # Lightning, imported just now, has set its loggers' levels
    if not own.dry_run:
        require("sbatch")
    if own.at_a_time < 0:
        raise BadInputError(f"{own.at_a_time} cells at a time", where="command line: --at-a-time", expected="1 or more")
    wanted = Wanted(
        own.target, own.verb, own.strategy, tuple(rest), own.output_root, own.backbone, with_search=not own.no_search
    )
    gpus = own.gpus_per_node
    if gpus is None:
        gpus = "0" if plan(wanted, None).accelerator == "cpu" else "1"
    resources = Resources(
        own.nodes,
        max(1, gpus_in(gpus)) if own.tasks_per_node is None else own.tasks_per_node,
        gpus,
        (8 if gpus_in(gpus) else 1) if own.cpus_per_task is None else own.cpus_per_task,
        own.time,
        own.signal_seconds,
        **{name: getattr(own, name) for name in ("partition", "account", "qos", "constraint", "mem")},
        more=tuple(own.sbatch),
    )
    resources.check()
    job = draft(plan(wanted, resources), resources, root, own.job_name, own.at_a_time, ["slurm", *arguments])
    if own.dry_run:
        sys.stdout.write(job.script)
        return ExitCode.DONE
    done = submitted(job)
    say(
        f"job {done.job}: {done.name}, {len(done.labels)} cells"
        if len(done.labels) > 1
        else f"job {done.job}: {done.name}"
    )
    say(f"script  {short_path(Path(done.script))}\nlog     {short_path(done.log_of(done.elements[0]))}")
    say(f"next    m2pt slurm status {done.job}{output_words(root)}")
    return ExitCode.DONE


def output_words(root: Path) -> str:
    """Returns the flag that later commands need to find what was recorded."""
    return "" if root == DEFAULT_OUTPUT_ROOT else f" --output_root {root}"


def show_status(jobs: Sequence[str], root: Path) -> int:
    """Shows where jobs stand."""
    folder = folder_of(root)
    require("squeue")
    chosen = [submission_of(folder, job) for job in jobs] if jobs else submissions(folder)
    if not chosen:
        say(f"no job was submitted from here: there is nothing in {folder}")
        return ExitCode.DONE
    found = statuses(folder, chosen)
    elements = {job for job in jobs if "_" in job}
    whole = {job for job in jobs if "_" not in job}
    kept = [s for s in found if not jobs or s.element in elements or s.element.partition("_")[0] in whole]
    OUT.print(status_table(kept))
    return ExitCode.DONE


def show_log(job: str, root: Path, lines: int, *, follow: bool) -> int:
    """Shows the end of a job's log."""
    submission = submission_of(folder_of(root), job)
    if job not in submission.elements:
        raise BadInputError(
            f"job {job} has {len(submission.elements)} elements",
            where="command line",
            expected=f"one of them, such as {submission.elements[0]}",
        )
    path = submission.log_of(job)
    if not path.exists() and not follow:
        raise BadInputError(
            "nothing is written yet",
            where=str(path),
            expected="a job that has started",
            hint=f"m2pt slurm status {job} says whether it has; -f waits for it",
        )
    words = ["tail", "-n", str(max(0, lines)), *(["-F"] if follow else []), str(path)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
    ) as tail:
        assert tail.stdout is not None
        try:
            for line in tail.stdout:
                say(line.rstrip("\n"))
        finally:
            tail.terminate()
    return ExitCode.DONE


def cancel(jobs: Sequence[str], root: Path) -> int:
    """Cancels jobs and says which."""
    folder = folder_of(root)
    require("scancel")
    if ALL in jobs:
        chosen = [(each, element) for each in submissions(folder) for element in each.elements]
    else:
        found = [(job, submission_of(folder, job)) for job in jobs]
        chosen = [(each, e) for job, each in found for e in ([job] if job in each.elements else each.elements)]
    in_queue = queued()
    for submission, element in chosen:
        seen = in_queue.get(element)
        if seen is None or seen.is_over or not is_same(seen, submission):
            if ALL not in jobs:
                say(f"over        {element} ({submission.name})")
            continue
        asked(["scancel", element])
        note_cancelled(folder, submission, element)
        say(f"cancelled   {element} ({submission.name}, was {seen.state.lower()})")
    return ExitCode.DONE


def note_cancelled(folder: Path, submission: Submission, element: str) -> None:
    """Records that an element was cancelled from here."""
    submission.cancelled.append(element)
    write_submission(folder, replace(submission))
