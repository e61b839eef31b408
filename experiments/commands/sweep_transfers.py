"""Runs ``m2pt sweep transfers``: prompts in pixels are trained, used on every base, and shown in one table."""

from typing import TYPE_CHECKING

from experiments.prompt_transfer.matrix import directions
from experiments.prompt_transfer.matrix_table import matrix_table, write_matrix
from experiments.prompt_transfer.planned import check_answers, transfer_jobs
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.report.tables.formats import TERMINAL, formatted
from lightning_m2pt.system.console import OUT, say, short_path

if TYPE_CHECKING:
    from experiments.commands.sweep import Session

SOMETHING_MISSING = 1


def run_transfers(session: "Session", *, table_only: bool) -> int:
    """Trains and uses what is not complete, seed after seed, and shows what came out.

    Args:
        session: On a sweep with a section ``transfer``.
        table_only: Show what is there and run nothing.

    Raises:
        BadInputError: If the sweep has no such section, or something in it is wrong.
    """
    plan = session.sweep.transfer
    if plan is None:
        raise BadInputError(
            "nothing is carried to another base in this sweep",
            where=str(session.sweep.path),
            expected="a section `transfer`",
            hint="docs/transfer.md tells how to write one",
        )
    if not table_only:
        run_rounds(session)
    all_carried = session.carried()
    table = matrix_table(session.sweep.name, directions(plan, all_carried))
    say(formatted([table], TERMINAL, OUT.width).rstrip("\n"))
    say(f"table: {short_path(write_matrix(session.record.folder, plan, table, session.rates))}")
    return SOMETHING_MISSING if any(row["missing"] for row in table.records) else ExitCode.DONE


def run_rounds(session: "Session") -> None:
    """Runs what is not complete: one seed of all rows with its transfers, then the next one, and means of prompts last.

    A sweep that was stopped early has all rows with fewer seeds.
    """
    plan = session.sweep.transfer
    assert plan is not None
    check_answers(plan, session.setting)
    session.check()
    if session.is_searching:
        session.search(cells_follow=True)
    for seed in (*plan.seeds, None):
        seeded = [job for job in session.cells() if job.name == f"seed {seed}"]
        session.run_jobs(seeded, (), session.all_jobs())
        all_carried = session.carried()
        session.transfers = transfer_jobs(all_carried)
        of_round = [each for each in all_carried if seed is None or (each.seed == seed and not each.is_mean)]
        session.run_jobs(transfer_jobs(of_round), (), session.all_jobs())
