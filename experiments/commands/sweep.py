"""Runs ``m2pt sweep``; its flags and what it is for are in ``parsers``."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.live import Live

from experiments.cluster.records import folder_of, submissions
from experiments.commands.parsers.sweep import argument_parser
from experiments.prompt_transfer.planned import Carried, carried_prompts, check_trained, trained_runs, transfer_jobs
from experiments.sweep.file import SearchPlan, SweepFile, find_sweep, read_sweep, shipped_sweeps
from experiments.sweep.jobs import (
    OF_RULE,
    Job,
    Rates,
    SweepSettings,
    cells,
    check_backbone,
    command_lines,
    experiment_words,
)
from experiments.sweep.record import State, SweepRecord
from experiments.sweep.runner import SweepRunner
from experiments.sweep.search import (
    FINAL_FAILURES,
    VariantSearch,
    check_borrowed,
    chosen_rates,
    plan_search,
    without_rates,
)
from experiments.sweep.status import status_table, statuses, summary_line
from experiments.sweep.study import conclude, known_searches, require_packages
from experiments.sweep.table import results_table, sweep_rows, write_table
from experiments.sweep.variant import Variant
from lightning_m2pt.errors import BadInputError, ExitCode
from lightning_m2pt.report.tables.formats import TERMINAL, ReportTable, formatted
from lightning_m2pt.system.console import OUT, say

if TYPE_CHECKING:
    from experiments.configuration.cli import Experiment

A_CELL_FAILED = 1


def main(arguments: Sequence[str]) -> int:
    """Runs the verb."""
    own = argument_parser().parse_args(list(arguments))
    if own.action == "list":
        return list_sweeps()
    sweep = read_sweep(find_sweep(own.file))
    check_backbone(own.backbone, sweep)
    setting = SweepSettings(own.backbone, own.output_root, tuple(own.opened))
    session = Session(sweep, setting, with_search=sweep.search is not None and not own.no_search)
    if own.action == "status":
        session.show_status()
        return ExitCode.DONE
    if own.jobs < 1:
        raise BadInputError(f"{own.jobs} cells at a time", where="command line: --jobs", expected="1 or more")
    session.at_most = own.jobs
    if own.action == "run" and own.dry_run:
        session.show_commands()
        return ExitCode.DONE
    if own.action == "transfers":
        from experiments.commands.sweep_transfers import run_transfers  # torch is not loaded for anything else here

        return run_transfers(session, table_only=own.table_only)
    if own.search_only and not session.with_search:
        raise BadInputError(
            "there is no search to run",
            where=f"{sweep.path}: --search-only",
            expected="a sweep with a section `search`, without --no-search",
        )
    return session.run(search_only=own.search_only)


def list_sweeps() -> int:
    """Names the shipped sweeps with their files' first line."""
    for path in shipped_sweeps():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        say(f"{path.stem:<12} {first.removeprefix('#').strip()}")
    return ExitCode.DONE


@dataclass
class Session:
    """One start of the verb on one sweep.

    Attributes:
        sweep: The sweep.
        setting: Backbone and output folder.
        with_search: Whether learning rates are searched first.
        at_most: Jobs at a time.
        transfers: Uses of trained prompts on other bases, as far as the prompts are there.
    """

    sweep: SweepFile
    setting: SweepSettings
    with_search: bool
    at_most: int = 1
    transfers: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Reads what an earlier start found out; parses no experiment."""
        folder = self.setting.folder(self.sweep)
        self.record = SweepRecord(folder, self.setting.output_root / "sweeps" / ".locks")
        self.searches: dict[str, VariantSearch] = {}
        self.chosen: dict[str, int] = {}
        if self.with_search:
            self.searches, self.chosen = known_searches(self.sweep, self.setting, folder)

    @property
    def rates(self) -> dict[str, Rates]:
        """Searched learning rates by label; what the search left as stated is not in it."""
        return dict(chosen_rates(self.sweep.variants, self.searches, self.chosen))

    @property
    def is_searching(self) -> bool:
        """Whether rates are still to be chosen."""
        return self.with_search and bool(without_rates(self.sweep.variants, self.chosen))

    @property
    def trials(self) -> list[Job]:
        """The trials of the variants whose rates are still to be chosen."""
        return [job for label, search in self.searches.items() if label not in self.chosen for job in search.trials]

    def cells(self) -> list[Job]:
        """Returns all cells; with a search, those of the variants whose rates are chosen."""
        jobs = cells(self.sweep, self.setting, self.rates)
        lacking = {variant.label for variant in without_rates(self.sweep.variants, self.chosen)}
        return [job for job in jobs if job.label not in lacking] if self.with_search else jobs

    def shown_trials(self) -> list[Job]:
        """Returns the trials for display; what is chosen needs no trial that the record has no more."""
        return [
            job
            for label, search in self.searches.items()
            for job in search.trials
            if label not in self.chosen or self.record.state(job) == State.DONE
        ]

    def all_jobs(self) -> list[Job]:
        """Returns the trials and all cells, for display."""
        return [*self.shown_trials(), *cells(self.sweep, self.setting, self.rates), *self.transfers]

    def show_commands(self) -> None:
        """Writes the cells' command lines to standard output, and the budget beside it."""
        jobs = cells(self.sweep, self.setting, self.rates)
        sys.stdout.write("".join(f"{line}\n" for line in command_lines(jobs)))
        budget = f"{len(jobs)} cells"
        if self.with_search and self.sweep.search is not None:
            searched = [variant for variant in self.sweep.variants if not variant.rates_of]
            variants, trials = len(searched), self.sweep.search.trials
            budget += (
                f" after a search of {variants * trials} trials ({trials} for each of {variants} variants, "
                f"{self.sweep.search.share_of_steps:.0%} of the steps each)"
            )
            if self.is_searching:
                budget += (
                    f"\nrates are chosen for {len(self.chosen)} of {variants} variants, the other lines have their "
                    "files'; `m2pt sweep run FILE --search-only` chooses them"
                )
        sys.stderr.write(f"{budget}\n")

    def show_status(self) -> None:
        """Shows where the sweep stands."""
        self.transfers = transfer_jobs(self.carried()) if self.sweep.transfer is not None else []
        found = statuses(self.all_jobs(), self.record)
        OUT.print(status_table(found, f"sweep {self.sweep.name}"))
        say(summary_line(found, None))
        jobs = cells(self.sweep, self.setting, self.rates)
        root = self.setting.output_root
        waiting = {job.title for job in jobs if self.record.state(job) == State.WAITING}
        submitted = [each.job for each in submissions(folder_of(root)) if waiting.intersection(each.labels.values())]
        if submitted:
            say(
                "cells that SLURM runs are waiting here, until `m2pt sweep run` finds them complete: "
                f"`m2pt slurm status {' '.join(submitted)} --output_root {root}`"
            )
        say_table(results_table(sweep_rows(jobs, self.record, self.rates)))

    def run(self, *, search_only: bool) -> int:
        """Searches, runs the cells, and shows what came out."""
        self.check()
        if self.is_searching:
            self.search(cells_follow=not search_only)
        if search_only:
            return A_CELL_FAILED if self.is_searching else ExitCode.DONE
        jobs = self.cells()
        try:
            self.run_jobs(jobs, (), self.all_jobs())
        except SystemExit:  # a stop signal; the children have ended
            self.show_results(jobs)
            raise
        is_done = all(status.state == State.DONE for status in statuses(jobs, self.record))
        self.show_results(jobs)
        for variant in without_rates(self.sweep.variants, self.chosen) if self.with_search else ():
            say(f"not run: {variant.label}, because its search is not complete or no trial ended well")
            is_done = False
        return ExitCode.DONE if is_done else A_CELL_FAILED

    def check(self) -> None:
        """Parses every experiment that is not complete: what is wrong ends the sweep before anything runs."""
        if self.is_searching:
            require_packages()
        lacking = {variant.label for variant in without_rates(self.sweep.variants, self.chosen)}
        known = {each.label: not self.with_search or each.label not in lacking for each in self.sweep.variants}
        for job in cells(self.sweep, self.setting, self.rates):
            known[job.label] &= self.record.state(job) == State.DONE
        stated: dict[str, dict[str, float]] = {}
        possible: dict[str, list[str]] = {}
        for variant in self.sweep.variants:
            if not known[variant.label]:
                experiment = parsed(variant, self.setting)
                if self.sweep.transfer is not None:
                    check_trained(self.sweep.transfer, variant.label, experiment)
                if self.with_search:
                    stated[variant.label] = self.plan_search(variant, experiment)
                    possible[variant.label] = experiment.model.method.possible_parts()
        for variant in self.sweep.variants:
            if variant.label in stated and variant.rates_of and variant.rates_of in self.searches:
                lender = self.searches[variant.rates_of]
                check_borrowed(variant, stated[variant.label], possible[variant.label], lender)

    def plan_search(self, variant: Variant, experiment: "Experiment") -> dict[str, float]:
        """Returns a variant's stated rates, and plans its search if it has one that is not planned yet."""
        stated, steps = stated_rates(experiment), int(experiment.trainer_values["max_steps"] or 0)
        if self.sweep.search is not None and not variant.rates_of:
            refuse_judging_on_nothing(self.sweep.search, variant, experiment.trainer_values.get("limit_val_batches"))
        if self.sweep.search is not None and not variant.rates_of and variant.label not in self.searches:
            self.searches[variant.label] = plan_search(self.sweep.search, variant, self.setting, stated, steps)
        return stated

    def carried(self) -> list[Carried]:
        """Returns every use of a prompt that the section ``transfer`` asks for."""
        jobs = cells(self.sweep, self.setting, self.rates)
        return carried_prompts(self.sweep, self.setting, trained_runs(jobs, self.record))

    def search(self, *, cells_follow: bool) -> None:
        """Runs the trials that have not ended, and chooses; cells that do not follow are no part of what is left."""
        self.chosen = conclude(list(self.searches.values()), self.record)
        self.run_jobs(self.trials, FINAL_FAILURES, self.all_jobs() if cells_follow else self.shown_trials())
        self.chosen = conclude(list(self.searches.values()), self.record)
        for label, number in self.chosen.items():
            rates = ", ".join(f"{part} {rate:g}" for part, rate in self.searches[label].rates[number].items())
            say(f"rates of {label}: {rates}" + (" (as its file states)" if number == 0 else f" (trial {number})"))

    def run_jobs(self, jobs: Sequence[Job], final_failures: Sequence[int], shown: Sequence[Job]) -> None:
        """Runs jobs, with a live table of those shown on a terminal, and one line for every event elsewhere."""
        title = f"sweep {self.sweep.name}"
        if not OUT.is_terminal:

            def tell(line: str) -> None:
                say(f"{time.strftime('%H:%M:%S')}  {line}")
                if not line.startswith("start"):
                    say(f"          {summary_line(statuses(shown, self.record), self.at_most)}")

            SweepRunner(jobs, self.record, self.at_most, tell, lambda: None, final_failures).run()
            return
        # Without a thread of its own: children are started between two refreshes.
        with Live(console=OUT, auto_refresh=False) as live:

            def refresh() -> None:
                found = statuses(shown, self.record)
                table = status_table(found, title)
                table.caption = summary_line(found, self.at_most)
                live.update(table, refresh=True)

            SweepRunner(jobs, self.record, self.at_most, say, refresh, final_failures).run()

    def show_results(self, jobs: Sequence[Job]) -> None:
        """Shows and stores the table of complete runs."""
        table = results_table(sweep_rows(jobs, self.record, self.rates))
        say_table(table)
        write_table(self.record.folder, table)
        say(f"table, logs and record: {self.record.folder}")


def refuse_judging_on_nothing(plan: SearchPlan, variant: Variant, limit: object) -> None:
    """Looks whether a trial has something to be judged on.

    Raises:
        BadInputError: If the experiment validates on nothing and the search does not say on how much.
    """
    if not plan.validation_batches and limit == 0:
        raise BadInputError(
            f"{variant.label!r} validates on nothing, so that no trial can be judged",
            where=f"{variant.where}: trainer.limit_val_batches",
            expected=f"search.validation_batches in {plan.where}, or another limit",
        )


def say_table(table: ReportTable) -> None:
    """Shows a table of results if it has rows."""
    if table.rows:
        say(formatted([table], TERMINAL, OUT.width).rstrip("\n"))


def parsed(variant: Variant, setting: SweepSettings) -> "Experiment":
    """Parses a variant's experiment as its cells will; loads no weights.

    Raises:
        BadInputError: Naming the variant's line as well.
    """
    from experiments.configuration.cli import parse_experiment
    from experiments.runs.prepare import require_benchmarks
    from lightning_m2pt.main import quieten_libraries

    quieten_libraries()  # Lightning, imported just now, has set its loggers' levels
    try:
        experiment = parse_experiment(experiment_words(variant, setting, {}))
        require_benchmarks(experiment)
        backbone = experiment.model.backbone
        backbone.check_files()
        experiment.model.method.check_words(backbone)
        processor = backbone.processor()
        for data_module in (experiment.data, *experiment.benchmarks):
            processor.bound(data_module.template)
    except BadInputError as error:
        raise BadInputError(
            error.what, where=f"{variant.where}: {error.where}", expected=error.expected, hint=error.hint
        ) from error
    if not experiment.model.method.part_names():
        raise BadInputError(
            f"{variant.label!r} trains nothing",
            where=variant.where,
            expected="a method with trained parts",
            hint="the frozen model is evaluated with every run, and is the table's first row",
        )
    return experiment


def stated_rates(experiment: "Experiment") -> dict[str, float]:
    """Returns the learning rate of every trained part as the experiment's file states it.

    Parts that ``model.gradient_norm`` moves have one rate together, in the words in which it is stated.
    """
    given: float | Mapping[str, float] = experiment.config["model"]["optimizer"]["learning_rate"]
    trained, rule = experiment.model.method.part_names(), experiment.model.gradient_norm
    ruled = [part for part in trained if rule is not None and part in rule.parts]
    rates = {part: float(given[part] if isinstance(given, Mapping) else given) for part in trained if part not in ruled}
    if ruled and rule is not None:
        key, length = ("rate", rule.rate) if rule.rate is not None else ("grey_levels", rule.grey_levels)
        assert length is not None
        rates[f"{OF_RULE}{key}"] = length
    return rates
