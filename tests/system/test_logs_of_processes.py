"""What another process than the first warns of is not lost, and nothing else of it is shown."""

import logging
import os
import time
from pathlib import Path

import pytest

from lightning_m2pt.system.console import log_file
from lightning_m2pt.system.ranks import is_first_process, process_name
from tests.support.ranks import on_ranks

LOG = logging.getLogger("data_modules.somewhere")


def test_warnings_of_another_process_stand_in_a_file_that_the_first_names(tmp_path: Path, capfd) -> None:
    def one_rank() -> None:

        with log_file(tmp_path):
            LOG.info("step 1")
            if os.environ["RANK"] == "1":
                LOG.warning("a picture is gray\x1b[2J")
            while not (tmp_path / "log-of-process-1.txt").exists():
                time.sleep(0.01)
        LOG.warning("nobody keeps this")

    on_ranks(3, one_rank, timeout=30)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["log-of-process-1.txt", "log.txt"]
    warned = (tmp_path / "log-of-process-1.txt").read_text()
    assert warned.count("\n") == 1
    assert "a picture is gray" in warned
    assert "\x1b" not in warned
    assert "step 1" in (tmp_path / "log.txt").read_text()
    said = capfd.readouterr().out
    assert said.count("step 1") == 1
    assert said.count("other processes warned: ") == 1
    assert "log-of-process-1.txt" in said


def test_a_log_of_an_earlier_start_is_not_named_again(tmp_path: Path, capfd) -> None:

    old = tmp_path / "log-of-process-1.txt"
    old.write_text("old\n")
    os.utime(old, (1, 1))
    with log_file(tmp_path):
        pass
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"TORCHELASTIC_RUN_ID": "none", "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1"}, "3"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"}, "2"),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, "1"),
        ({"NODE_RANK": "1"}, "1-0"),
        ({"GROUP_RANK": "1", "LOCAL_RANK": "0"}, "1-0"),
        ({"NODE_RANK": "1", "LOCAL_RANK": "1"}, "1-1"),
    ],
)
def test_processes_have_names_of_their_own(environment, name) -> None:
    assert process_name(environment) == name
    assert not is_first_process(environment)
