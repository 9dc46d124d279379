"""Tasks in processes of our own: what they get, what comes back, and that nothing stays behind."""

import gc
import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from tuning.executor import WorkerPool
from tuning.process import WorkerDied
from tuning.sharing import THREADS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIMIT = 60  # seconds, after which something is taken to hang


@pytest.fixture(scope="module", autouse=True)
def tasks():
    """The module `tasks`, where workers find it, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(HERE), *sys.path])
        yield importlib.import_module("tasks")


@pytest.fixture
def pool():
    """A pool of one worker, which no test leaves behind."""
    pool = WorkerPool(1)
    yield pool
    pool.shutdown(wait=False, cancel_futures=True)


def alive(pid):
    """Whether a process runs; one that has ended and was not asked about yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(fact):
    """Waits until something holds."""
    end = time.monotonic() + LIMIT
    while not (found := fact()):
        assert time.monotonic() < end, "It never came to hold"
        time.sleep(0.01)
    return found


def script(folder, text):
    """A program without a guard."""
    path = folder / "program.py"
    path.write_text(f"import sys\nsys.path.append({str(HERE)!r})\n" + textwrap.dedent(text))
    warnings = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]  # of threads that a fork leaves behind
    return [sys.executable, *warnings, str(path)]


def run_script(folder, text):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(script(folder, text), capture_output=True, text=True, timeout=LIMIT, env=environment)


# What a task gets and gives


def test_a_task_runs_in_a_process_and_session_of_its_own(pool, tasks):
    number, session, parent = pool.submit(tasks.whereabouts).result(LIMIT)
    assert (session, parent) == (number, os.getpid())
    assert number != os.getpid()


def test_arguments_and_results_travel_whatever_their_size(pool, tasks):
    large = os.urandom(3_000_000)
    assert pool.submit(tasks.echo, 1, large, key=[None]).result(LIMIT) == ((1, large), {"key": [None]})


def test_an_argument_is_what_it_was_when_it_was_handed_over(pool, tasks, tmp_path):
    pool.submit(tasks.wait_for, tmp_path / "go")
    numbers = [1, 2]
    future = pool.submit(tasks.echo, numbers)
    numbers.append(3)
    (tmp_path / "go").touch()
    assert future.result(LIMIT) == (([1, 2],), {})


def test_map_keeps_the_order(tasks):
    with WorkerPool(2) as pool:
        assert list(pool.map(divmod, range(6), [2] * 6, timeout=LIMIT)) == [divmod(k, 2) for k in range(6)]


def test_a_worker_imports_nothing_heavy(pool, tasks):
    assert not {"numpy", "keras", "keras_tuner", "pandas", "concurrent"} & set(
        pool.submit(tasks.imported).result(LIMIT)
    )


def test_an_unguarded_script_is_run_once(tmp_path):
    done = run_script(
        tmp_path,
        """
        import tuning, tasks
        print("begin")
        pool = tuning.WorkerPool(2)
        print(sorted(pool.map(tasks.echo, [1, 2]))[0])
        """,
    )
    assert (done.stderr, done.stdout) == ("", "begin\n((1,), {})\n")


def test_what_another_process_cannot_import_is_refused(pool, tasks, tmp_path):
    def local():
        pass

    for fn in (local, lambda: 0, [].append, Path("a").exists, 7):
        with pytest.raises(TypeError, match="`fn` must be a function at the top of an importable module"):
            pool.submit(fn)
    done = run_script(
        tmp_path,
        """
        import tuning
        def mine(): pass
        try:
            tuning.WorkerPool(1).submit(mine)
        except TypeError as error:
            print(error)
        """,
    )
    assert "Received: __main__.mine. Move it to a module of its own." in done.stdout, done.stderr


def test_an_argument_whose_class_is_of_the_main_script_is_explained(tmp_path):
    done = run_script(
        tmp_path,
        """
        import tuning, tasks
        class Mine: pass
        error = tuning.WorkerPool(1).submit(tasks.echo, Mine()).exception()
        print(type(error).__name__, *error.__notes__)
        """,
    )
    assert done.stdout.startswith("AttributeError The task could not be read in its process"), done.stderr


# Failures


def test_an_exception_comes_back_with_its_traceback(pool, tasks):
    error = pool.submit(tasks.fail).exception(LIMIT)
    assert (type(error), str(error)) == (ValueError, "seven is no colour")
    assert "in fail" in error.__notes__[-1]


@pytest.mark.parametrize(
    ("kind", "text"),
    [("Picky", "Picky: this and that"), ("Stubborn", "Stubborn: no way"), ("SystemExit", "SystemExit: enough")],
)
def test_an_exception_that_cannot_travel_becomes_its_text(pool, tasks, kind, text):
    error = pool.submit(tasks.fail, kind).exception(LIMIT)
    assert (type(error), str(error)) == (RuntimeError, text)
    assert "in fail" in error.__notes__[-1]


def test_a_result_that_cannot_be_pickled_is_a_failure_of_its_task_alone(pool, tasks):
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        pool.submit(tasks.something_local).result(LIMIT)
    assert pool.submit(divmod, 7, 2).result(LIMIT) == (3, 1)


@pytest.mark.parametrize(
    ("how", "number", "code", "text"),
    [
        ("kill", signal.SIGKILL, None, "was ended by SIGKILL, as when memory runs out, in the middle of tasks.die."),
        ("segfault", signal.SIGSEGV, None, "was ended by SIGSEGV in the middle of tasks.die."),
        ("exit", None, 3, "exited with code 3 in the middle of tasks.die: last words"),
        ("fork", signal.SIGKILL, None, "was ended by SIGKILL"),
        ("hang up", signal.SIGKILL, None, "was ended by SIGKILL"),
    ],
)
def test_a_worker_that_dies_costs_its_task_alone(pool, tasks, how, number, code, text):
    first, second = pool.submit(tasks.die, how), pool.submit(divmod, 7, 2)
    with pytest.raises(WorkerDied, match=text) as caught:
        first.result(LIMIT)
    assert (caught.value.signal, caught.value.exit_code) == (number, code)
    assert "last words" in caught.value.log
    assert second.result(LIMIT) == (3, 1)


def test_another_worker_goes_on_where_one_dies(tasks, tmp_path):
    with WorkerPool(2) as pool:
        waits = pool.submit(tasks.wait_for, tmp_path / "go")
        with pytest.raises(WorkerDied, match="SIGKILL"):
            pool.submit(tasks.die, "kill").result(LIMIT)
        go(tmp_path)
        assert waits.result(LIMIT) == "on"


def test_a_worker_killed_while_it_rests_costs_nothing(pool, tasks):
    number = pool.submit(tasks.process_number).result(LIMIT)
    (process,) = pool._crew.processes
    os.kill(number, signal.SIGKILL)
    assert process.gone.wait(LIMIT)
    assert pool.submit(tasks.process_number).result(LIMIT) != number


def test_a_worker_that_cannot_start_says_why(tasks, tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise ImportError('no queue today')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with WorkerPool(1) as pool:
        futures = [pool.submit(divmod, 7, 2) for _ in range(2)]
        for future in futures:
            with pytest.raises(WorkerDied, match="code 1 before it could begin .*: ImportError: no queue today"):
                future.result(LIMIT)
        (tmp_path / "queue.py").unlink()
        assert pool.submit(divmod, 7, 2).result(LIMIT) == (3, 1)


def test_without_python_there_is_an_error_for_each_task(tasks, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with WorkerPool(1) as pool, pytest.raises(WorkerDied, match="No worker process could be started for builtins"):
        pool.submit(divmod, 7, 2).result(LIMIT)


# Logs


def test_what_a_task_prints_is_in_the_log_and_disturbs_nothing(tasks, tmp_path):
    (tmp_path / "worker-0.log").write_text("from before\n")
    with WorkerPool(1, log_directory=tmp_path) as pool:
        assert pool.submit(tasks.talk).result(LIMIT) == ""
        assert sorted((tmp_path / "worker-0.log").read_text().splitlines()) == sorted(
            ["from before", "python says", "python complains", "the descriptor says", "C says", "a child says"]
        )


def test_the_log_of_a_dead_worker_holds_what_it_said_itself(tasks, tmp_path):
    with WorkerPool(1, log_directory=tmp_path) as pool:
        pool.submit(tasks.talk).result(LIMIT)
        pool.submit(tasks.die, "kill").exception(LIMIT)
        with pytest.raises(WorkerDied, match=f"The end of its log {tmp_path}/worker-0.log:") as caught:
            pool.submit(tasks.die, "exit").result(LIMIT)
    assert caught.value.log == "last words"


def test_what_python_prints_when_it_starts_is_no_answer(tasks, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("print('good morning')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with WorkerPool(1, log_directory=tmp_path / "logs") as pool:
        assert pool.submit(divmod, 7, 2).result(LIMIT) == (3, 1)
    assert (tmp_path / "logs/worker-0.log").read_text() == "good morning\n"


# How many, and what each gets of the machine


def test_workers_are_started_when_needed_and_replaced(tasks, tmp_path):
    with WorkerPool(3, tasks_per_worker=3, log_directory=tmp_path) as pool:
        numbers = [pool.submit(tasks.process_number).result(LIMIT) for _ in range(7)]
        assert [path.name for path in tmp_path.iterdir()] == ["worker-0.log"]
    runs = [numbers[:3], numbers[3:6], numbers[6:]]
    assert all(len(set(run)) == 1 for run in runs)
    assert len({run[0] for run in runs}) == 3


def test_as_many_tasks_run_at_once_as_there_are_workers(tasks, tmp_path):
    with WorkerPool(2) as pool:
        waits = [pool.submit(tasks.wait_for, tmp_path / str(k)) for k in range(3)]
        eventually(lambda: waits[0].running() and waits[1].running())
        assert not waits[2].running()
        for k in range(3):
            go(tmp_path, str(k))
        assert [future.result(LIMIT) for future in waits] == ["on"] * 3
        assert len(pool._crew.processes) <= 2


def test_auto_is_a_number():
    assert WorkerPool().workers >= 1


@pytest.mark.parametrize("workers", [0, -1, 1.5, "many", None, True])
def test_a_bad_number_of_workers_is_refused(workers):
    with pytest.raises(ValueError, match='`workers` must be a whole number above 0 or "auto". Received: workers='):
        WorkerPool(workers)


def test_a_bad_number_of_tasks_is_refused():
    with pytest.raises(ValueError, match="`tasks_per_worker` must be a whole number above 0. Received"):
        WorkerPool(1, tasks_per_worker=0)


def test_cores_are_shared_out(tasks, monkeypatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    cores = len(os.sched_getaffinity(0))
    with WorkerPool(1) as pool:
        assert pool.submit(tasks.variables, *THREADS).result(LIMIT) == [str(cores)] * len(THREADS)
    with WorkerPool(10 * cores) as pool:
        assert pool.submit(tasks.variables, *THREADS).result(LIMIT) == ["1"] * len(THREADS)


def test_the_backend_is_that_of_the_parent(pool, tasks, monkeypatch):
    import keras

    monkeypatch.setenv("KERAS_BACKEND", "overruled by a configuration file")
    assert pool.submit(tasks.variables, "KERAS_BACKEND").result(LIMIT) == [keras.config.backend()]


# Ends


def test_shutdown_waits_for_all_that_was_handed_over(tasks):
    pool = WorkerPool(1)
    futures = [pool.submit(tasks.process_number) for _ in range(3)]
    pool.shutdown()
    assert all(future.done() for future in futures)
    assert not alive(futures[0].result())
    with pytest.raises(RuntimeError, match="The pool was shut down and takes no more tasks"):
        pool.submit(divmod, 7, 2)


def test_shutdown_can_cancel_what_has_not_begun(tasks, tmp_path):
    pool = WorkerPool(1)
    runs, waits = pool.submit(tasks.wait_for, tmp_path / "go"), pool.submit(divmod, 7, 2)
    eventually(runs.running)
    threading.Timer(0.2, (tmp_path / "go").touch).start()
    pool.shutdown(wait=True, cancel_futures=True)
    assert (runs.result(0), waits.cancelled()) == ("", True)


def test_shutdown_can_kill_what_runs(tasks, tmp_path):
    pool = WorkerPool(2)
    runs = [pool.submit(tasks.scribble, tmp_path) for _ in range(2)]
    waits = pool.submit(divmod, 7, 2)
    pids = eventually(lambda: both_pids(tmp_path, 2))
    pool.shutdown(wait=False, cancel_futures=True)
    assert not any(alive(worker) for worker, _ in pids)
    with pytest.raises(CancelledError):
        waits.result(LIMIT)
    for future in runs:
        with pytest.raises(WorkerDied, match="was killed with its pool in the middle of tasks.scribble"):
            future.result(LIMIT)
    eventually(lambda: not any(alive(child) for _, child in pids))


def test_a_task_that_waits_can_be_cancelled(pool, tasks, tmp_path):
    runs, waits, last = (pool.submit(tasks.wait_for, tmp_path / name) for name in ("go", "never", "go"))
    eventually(runs.running)
    assert waits.cancel()
    go(tmp_path)
    assert (runs.result(LIMIT), last.result(LIMIT)) == ("on", "on")


def test_a_forgotten_pool_finishes_its_tasks_and_ends(tasks, tmp_path):
    future = WorkerPool(1).submit(tasks.wait_for, tmp_path / "go")
    number = WorkerPool(1).submit(tasks.process_number).result(LIMIT)
    gc.collect()
    go(tmp_path)
    assert future.result(LIMIT) == "on"
    eventually(lambda: not alive(number))


def test_the_end_of_the_program_ends_what_runs(tmp_path):
    done = run_script(
        tmp_path,
        f"""
        import os, time, tuning, tasks
        from pathlib import Path
        pool = tuning.WorkerPool(1)
        running, waiting = pool.submit(tasks.scribble, {str(tmp_path)!r}), pool.submit(tasks.process_number)
        while not list(Path({str(tmp_path)!r}).glob("*.pids")):
            time.sleep(0.01)
        if not os.fork():  # holds the pipes for a while, so that their end is not what ends the worker
            os.closerange(0, 3)
            time.sleep(3)
            os._exit(0)
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    ((worker, child),) = both_pids(tmp_path, 1)
    assert not alive(worker)
    eventually(lambda: not alive(child))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("fork", [False, True], ids=["alone", "with a fork that holds the pipes"])
def test_no_worker_outlives_its_parent(tmp_path, number, fork):
    program = f"""
        import os, signal, time, tuning, tasks
        signal.signal(signal.SIGINT, signal.default_int_handler)  # of a process in the background, the shell ignores it
        pool = tuning.WorkerPool(2)
        futures = [pool.submit(tasks.scribble, {str(tmp_path)!r}) for _ in range(2)]
        while len([name for name in os.listdir({str(tmp_path)!r}) if name.endswith(".pids")]) < 2:
            time.sleep(0.01)
        if {fork} and not (fork := os.fork()):
            time.sleep(600)
            os._exit(0)
        open({str(tmp_path / "ready")!r}, "w").write(str(fork if {fork} else 0))
        futures[0].result()
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(script(tmp_path, program), env=environment, stderr=subprocess.DEVNULL)
    fork = int(eventually(lambda: (tmp_path / "ready").exists() and (tmp_path / "ready").read_text()))
    pids = both_pids(tmp_path, 2)
    parent.send_signal(number)
    parent.wait(LIMIT)
    try:
        eventually(lambda: not any(alive(worker) or alive(child) for worker, child in pids))
    finally:
        if fork:
            os.kill(fork, signal.SIGKILL)
    sizes = [path.stat().st_size for path in tmp_path.glob("*.txt")]
    time.sleep(0.1)
    assert sizes == [path.stat().st_size for path in tmp_path.glob("*.txt")]
    assert all(sizes)


def both_pids(folder, number):
    """Numbers of workers that scribble, each with that of its child, once there are so many."""
    found = [(int(path.stem), int(path.read_text())) for path in folder.glob("*.pids")]
    return found if len(found) == number else []


def test_a_worker_started_by_hand_says_what_it_is_for():
    done = subprocess.run(
        [sys.executable, "-m", "tuning.worker"], capture_output=True, text=True, timeout=LIMIT, cwd=ROOT
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "tuning.worker runs the trials of a search, which starts it by itself: call tuning.search.\n"
    )


def go(folder, name="go"):
    """Lets a task that waits go on; the file is whole when it is there."""
    (folder / "new").write_text("on")
    (folder / "new").rename(folder / name)
