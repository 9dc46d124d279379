"""A cluster on this machine: Dask's scheduler and two workers, each a process, over loopback."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tuning
from tuning.journal import Journal

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIMIT = 120  # seconds, after which something is taken to hang

pytestmark = pytest.mark.slow
distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module", autouse=True)
def tasks():
    """The module `tasks`, where Dask's workers find it, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(HERE), *sys.path])
        yield importlib.import_module("tasks")


@pytest.fixture
def cluster(tmp_path):
    """A client of a scheduler with two workers of one thread each."""
    place = tmp_path / "scheduler.json"
    common = ["--no-dashboard", "--scheduler-file", str(place)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]), "PYTHONWARNINGS": "ignore"}
    with contextlib.ExitStack() as stack:

        def start(*command):
            log = stack.enter_context(open(tmp_path / f"{command[0]}.log", "ab"))
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *command, *common], stdout=log, stderr=log, env=environment, cwd=tmp_path
            )
            stack.callback(process.wait)
            stack.callback(process.kill)

        start("scheduler", "--host", "127.0.0.1", "--port", "0")
        for _ in range(2):
            start("worker", "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny")
        client = stack.enter_context(distributed.Client(scheduler_file=str(place), timeout=LIMIT))
        client.wait_for_workers(2, timeout=LIMIT)
        yield client


def test_what_a_killed_worker_was_at_runs_again_elsewhere(cluster, tasks, tmp_path):
    started, go = tmp_path / "started.txt", tmp_path / "go"
    executor = cluster.get_executor(pure=False)
    futures = [executor.submit(tasks.begin, str(started), number, str(go)) for number in range(5)]
    end = time.monotonic() + LIMIT
    while not (started.exists() and len(begun := started.read_text().splitlines()) == 2):
        assert time.monotonic() < end, "No two tasks began"
        time.sleep(0.01)
    struck, killed = begun[0].split()
    os.kill(int(killed), signal.SIGKILL)
    go.touch()

    assert [future.result(LIMIT) for future in futures] == list(range(5))
    runs = [line.split() for line in started.read_text().splitlines()]
    assert sorted(number for number, _ in runs) == sorted([*map(str, range(5)), struck])
    assert {pid for number, pid in runs if number == struck} == {pid for _, pid in runs}


def rates(hp):
    return {"learning_rate": hp.Float("learning_rate", 1e-3, 1e-1, sampling="log", default=1e-2)}


@pytest.mark.long
def test_a_search_outlives_a_worker_killed_in_the_middle_of_a_trial(cluster, few_digits, tmp_path):
    folder = tmp_path / "search"
    assert len(cluster.run(os.getpid)) == 2
    given = {"space": rates, "algorithm": "random", "trials": 4, "directory": folder, "batch_size": 4, "epochs": 12}
    executor = cluster.get_executor(pure=False)
    with ThreadPoolExecutor(1) as aside:
        search = aside.submit(
            tuning.search, "convnet", few_digits, executor=executor, variant={"filters": [2, 4]}, **given
        )
        end = time.monotonic() + LIMIT
        while not (begun := list(folder.glob("trials/*/attempt-1/checkpoints"))):
            assert time.monotonic() < end and not search.done(), "No trial began"
            time.sleep(0.02)
        struck = begun[0].parts[-3]
        os.kill(int(json.loads((begun[0].parent / ".lock.json").read_text())["process"]), signal.SIGKILL)
        result = search.result(LIMIT)

    assert len(cluster.run(os.getpid)) == 1
    assert result.trials.trial.tolist() == ["0000", "0001", "0002", "0003"]
    assert set(result.trials.status) == {"completed"}
    ended = [event["result"] for event in Journal(folder).events() if event["event"] == "ended"]
    assert sorted(result["trial"] for result in ended) == ["0000", "0001", "0002", "0003"]
    assert result.results[struck]["attempt"] == "attempt-2"
    assert (folder / "trials" / struck / "attempt-1").is_dir()
