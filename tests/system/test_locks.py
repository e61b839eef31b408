"""Locks: one at a time, shared with children, gone with the last process that has them."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.sweep.locks import is_locked, try_lock
from lightning_m2pt.errors import EnvironmentFailure
from lightning_m2pt.system.file_lock import lock_file, locked


def test_a_lock_is_taken_once_and_given_back(tmp_path):
    path = tmp_path / "folder" / "a.lock"
    assert not is_locked(path)
    assert not path.exists()
    held = try_lock(path)
    assert held is not None
    assert try_lock(path) is None
    assert is_locked(path)
    os.close(held)
    assert not is_locked(path)


def test_a_link_in_a_locks_place_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    lock_file(tmp_path / "run").symlink_to(precious)
    with pytest.raises(EnvironmentFailure, match="cannot be locked"), locked(tmp_path / "run", lambda: None) as lock:
        lock.write("{}")
    assert precious.read_text() == "kept"


def test_a_child_holds_the_lock_when_its_parent_was_killed(tmp_path):
    path = tmp_path / "a.lock"
    program = (
        "import os, subprocess, sys, signal; from pathlib import Path; from experiments.sweep.locks import try_lock;"
        f"held = try_lock(Path({str(path)!r}));"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(2)'], pass_fds=[held]);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode < 0
    assert is_locked(path)
    end = time.monotonic() + 60
    while is_locked(path):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_several_need_is_done_once(tmp_path):
    done: list[int] = []

    def prepare() -> None:
        with locked(tmp_path / "a", lambda: None):
            if not done:
                time.sleep(0.2)
                done.append(1)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [1]
