"""Tasks in processes of our own: an executor that works from any script and leaves nothing behind."""

import atexit
import contextlib
import operator
import os
import pickle
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from tuning.process import Process, WorkerDied
from tuning.sharing import cores, memory, visible_gpus, worker_environment, workers_for
from zoo.files import make_folder


class WorkerPool(Executor):
    """Runs functions in processes that never import the main script, so no `if __name__ == "__main__"` is needed.

    Workers are started as they are needed, share the cores and the GPUs out, and are replaced after a few tasks, so
    that memory stays bounded. One that dies costs the task it was at, whose future raises `WorkerDied`; another takes
    its place. All end with this process, whatever ends it, and a terminal's Ctrl-C does not reach them. They end
    without Python's exit handlers.

    A pool that is collected ends its processes when all tasks have run, as after `shutdown(wait=False)`. At the end of
    the program those that still run are killed: ask a future for its result to wait for it.

    Args:
        workers: Processes; "auto" as `workers_for` says for this machine.
        tasks_per_worker: After which a process is replaced.
        log_directory: Folder for what the processes print: worker-0.log and so on, written on where they exist. By
            default it is kept only as long as the process lives.

    Attributes:
        workers: How many processes run at most.

    Raises:
        ValueError: If `workers` or `tasks_per_worker` is no whole number above 0.
        OSError: If `log_directory` cannot be written.

    Example:
        >>> with WorkerPool(1) as pool:
        ...     pool.submit(divmod, 7, 2).result()
        (3, 1)
    """

    def __init__(
        self,
        workers: int | str = "auto",
        *,
        tasks_per_worker: int = 10,
        log_directory: str | os.PathLike | None = None,
    ):
        gpus = visible_gpus()
        if workers == "auto":
            workers = workers_for(gpus=len(gpus), cores=cores(), memory=memory())
        self.workers = _at_least_one("workers", workers, ' or "auto"')
        self._crew = _Crew(
            workers=self.workers,
            gpus=gpus,
            most=_at_least_one("tasks_per_worker", tasks_per_worker),
            logs=None if log_directory is None else make_folder(log_directory).resolve(),
        )
        weakref.finalize(self, self._crew.close).atexit = False

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Hands over a call; its arguments are pickled now, so what happens to them later does not matter.

        Raises:
            TypeError: If `fn` is no function at the top of a module that another process can import.
            RuntimeError: If the pool was shut down.
        """
        name = _importable(fn)
        payload = pickle.dumps((fn, args, kwargs), protocol=pickle.HIGHEST_PROTOCOL)
        return self._crew.add(_Task(name, payload))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more tasks, and ends the processes when the last one has run.

        Args:
            wait: Whether to return only then.
            cancel_futures: Whether tasks that have not begun are cancelled. Without `wait` those that run are killed,
                too; their futures raise `WorkerDied`, and no process is left on return.
        """
        if cancel_futures and not wait:
            self._crew.kill()
        else:
            self._crew.close(cancel=cancel_futures)
        if wait:
            self._crew.join()


class _Task:
    """A call on its way: the function's name, the pickle and the future."""

    def __init__(self, name: str, payload: bytes):
        self.name = name
        self.payload = payload
        self.future: Future = Future()


class _Crew:
    """The threads of a pool, each with a process; knows nothing of the pool, so that one left alone is collected."""

    def __init__(self, *, workers: int, gpus: list[str], most: int, logs: Path | None):
        self.workers, self.gpus, self.most, self.logs = workers, gpus, most, logs
        self.owner = os.getpid()
        self.changed = threading.Condition()  # holds what follows
        self.waiting: deque[_Task] = deque()
        self.threads: list[threading.Thread] = []
        self.processes: set[Process] = set()
        self.idle = 0
        self.open, self.killed = True, False
        _CREWS.add(self)

    def add(self, task: _Task) -> Future:
        with self.changed:
            if not self.open:
                raise RuntimeError("The pool was shut down and takes no more tasks. Make another WorkerPool.")
            self.waiting.append(task)
            if len(self.waiting) > self.idle and len(self.threads) < self.workers:
                name = f"worker-{len(self.threads)}"
                thread = threading.Thread(target=_supervise, args=(self, len(self.threads)), name=name, daemon=True)
                thread.start()
                self.threads.append(thread)
                self.idle += 1
            self.changed.notify()
        return task.future

    def next(self) -> _Task | None:
        """The task that has waited longest, once there is one; None when there will be none."""
        with self.changed:
            while not self.waiting and self.open:
                self.changed.wait()
            if not self.waiting:
                return None
            self.idle -= 1
            return self.waiting.popleft()

    def rest(self) -> None:
        """A thread can take another task; said before its last one is settled, so that no process too many starts."""
        with self.changed:
            self.idle += 1

    def process(self, slot: int, task: str) -> Process:
        """A new process for a slot, ready for a task.

        Raises:
            WorkerDied: If it cannot be started, or ends before it is ready.
        """
        environment = worker_environment(slot, workers=self.workers, gpus=self.gpus, environment=os.environ)
        with self.changed:
            if self.killed:
                raise WorkerDied(f"The pool was shut down before {task} could begin.")
            try:
                process = Process(environment, self.logs / f"worker-{slot}.log" if self.logs else None)
            except OSError as error:
                raise WorkerDied(f"No worker process could be started for {task}: {error}") from error
            self.processes.add(process)
        try:
            process.greet(task)
        except WorkerDied:
            self.discard(process)
            raise
        return process

    def discard(self, process: Process) -> None:
        """Ends a process and forgets it."""
        process.close()
        with self.changed:
            self.processes.discard(process)

    def close(self, *, cancel: bool = False) -> None:
        with self.changed:
            self.open = False
            dropped = list(self.waiting) if cancel else []
            if cancel:
                self.waiting.clear()
            self.changed.notify_all()
        for task in dropped:
            task.future.cancel()
            task.future.set_running_or_notify_cancel()  # tells those that wait for it

    def kill(self) -> None:
        if os.getpid() != self.owner:  # a fork of the program must not end what belongs to the first
            return
        with self.changed:
            self.killed = True
            processes = list(self.processes)
        self.close(cancel=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.gone.wait()

    def join(self) -> None:
        for thread in list(self.threads):
            thread.join()


_CREWS: "weakref.WeakSet[_Crew]" = weakref.WeakSet()


@atexit.register
def _kill_all() -> None:
    for crew in list(_CREWS):
        crew.kill()


def _supervise(crew: _Crew, slot: int) -> None:
    """The life of a slot: a process, replaced when it is gone or has done its share."""
    process: Process | None = None
    while (task := crew.next()) is not None:
        if process is not None and process.gone.is_set():  # killed by somebody while it had nothing to do
            crew.discard(process)
            process = None
        answer: tuple[bool, Any, str] | None = None
        if task.future.set_running_or_notify_cancel():
            try:
                process = process or crew.process(slot, task.name)
                answer = pickle.loads(process.ask(task.payload, task.name))
            except Exception as error:  # WorkerDied, or an answer whose classes cannot be imported here
                answer = False, error, ""
        crew.rest()
        if answer:
            _settle(task.future, *answer)
        del task, answer  # a result must not be held until the next one
        if process is not None and (process.gone.is_set() or process.asked >= crew.most):
            crew.discard(process)
            process = None
    if process is not None:
        crew.discard(process)


def _settle(future: Future, ended_well: bool, value: Any, text: str) -> None:
    """Gives a future its result, or an exception with the traceback that it had elsewhere."""
    if ended_well:
        future.set_result(value)
        return
    if text:
        value.add_note(f"It was raised in a worker process:\n\n{text}")
    future.set_exception(value)


def _importable(fn: Callable) -> str:
    """The name of a function that another process finds by it.

    Raises:
        TypeError: If it would not.
    """
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    found = sys.modules.get(module) if isinstance(module, str) else None
    with contextlib.suppress(AttributeError):
        for part in (name or "<unnamed>").split("."):
            found = getattr(found, part)
    if found is not fn or module == "__main__":
        received = f"{module}.{name}" if name else repr(fn)
        raise TypeError(
            "`fn` must be a function at the top of an importable module, since it runs in a process that does not "
            f"import the main script. Received: {received}. Move it to a module of its own."
        )
    return f"{module}.{name}"


def _at_least_one(argument: str, value: Any, otherwise: str = "") -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"`{argument}` must be a whole number above 0{otherwise}. Received: {argument}={value!r}")
    return number
