"""A worker process, seen from the process that starts it."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from tuning import worker

LINES = 20  # of a log, in the message about a process that died


class WorkerDied(RuntimeError):
    """The process that ran a task, or was started for it, is gone.

    Attributes:
        signal: Number of the signal that ended it, such as 9 for SIGKILL; None where it ended otherwise.
        exit_code: What it exited with; None where a signal ended it or it never began.
        log: The last lines that it wrote.
    """

    def __init__(self, message: str, *, signal: int | None = None, exit_code: int | None = None, log: str = ""):
        super().__init__(message)
        self.signal = signal
        self.exit_code = exit_code
        self.log = log


class Process:
    """A process that runs one task after another. One thread uses it, though any may kill it.

    Args:
        environment: Its environment variables.
        log: File for what it prints, written on where it exists; by default one that goes with the process.

    Attributes:
        asked: How many tasks it was given.
        gone: Event that is set when nothing is left of it.

    Raises:
        OSError: If it cannot be started, or the log not be written.
    """

    def __init__(self, environment: Mapping[str, str], log: Path | None = None):
        self.asked = 0
        self.gone = threading.Event()
        self._killed = False
        self._path = log
        with contextlib.ExitStack() as undo:
            self._log = undo.enter_context(tempfile.TemporaryFile() if log is None else open(log, "ab+"))
            self._begin = os.fstat(self._log.fileno()).st_size
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", worker.__name__, worker.SERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                start_new_session=True,  # Ctrl-C at a terminal is for the parent
            )
            undo.pop_all()
        threading.Thread(target=self._bury, daemon=True).start()

    def greet(self, task: str) -> None:
        """Waits until it is ready; what was printed while Python started goes to the log.

        Args:
            task: That it was started for, as an error names it.

        Raises:
            WorkerDied: If it ends before.
        """
        heard = b""
        while not heard.endswith(worker.GREETING):
            byte = self._popen.stdout.read(1)  # type: ignore[union-attr]
            if not byte:
                raise self._died(f"before it could begin {task}")
            heard += byte
        self._log.write(heard.removesuffix(worker.GREETING))
        self._log.flush()

    def ask(self, payload: bytes, task: str) -> bytes:
        """The answer to a task, both as `tuning.worker` reads and writes them.

        Args:
            payload: The task.
            task: Its name, as an error says it.

        Raises:
            WorkerDied: If it ends before.
        """
        self.asked += 1
        with contextlib.suppress(BrokenPipeError):
            worker.send(self._popen.stdin, payload)  # type: ignore[arg-type]
        answer = worker.receive(self._popen.stdout)  # type: ignore[arg-type]
        if answer is None:
            raise self._died(f"in the middle of {task}")
        return answer

    def kill(self) -> None:
        """Ends it at once, with whatever it has started."""
        self._killed = True
        self._end()

    def close(self) -> None:
        """Ends it, waits for its end and lets go of its pipes and its log."""
        self.kill()
        self.gone.wait()
        for stream in (self._popen.stdin, self._popen.stdout, self._log):
            with contextlib.suppress(BrokenPipeError):  # what it never read of a task
                stream.close()  # type: ignore[union-attr]

    def _end(self) -> None:
        if not self.gone.is_set():
            worker.end_group(self._popen.pid)

    def _bury(self) -> None:
        """Waits for its end, and ends what it leaves behind: a fork of it would hold its pipe open for ever."""
        if hasattr(os, "waitid"):  # nobody else gets its number until it is waited for
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
                worker.end_group(self._popen.pid)
        self._popen.wait()
        self.gone.set()

    def _died(self, when: str) -> WorkerDied:
        """What is known of its end, once its pipe has ended."""
        self._end()  # it may live and have closed the pipe; where it was ending, its status stays what it was
        self.gone.wait()
        code = self._popen.returncode
        if self._killed:
            return WorkerDied(f"A worker process was killed with its pool {when}.", signal=-code if code < 0 else None)
        self._log.seek(self._begin)
        lines = self._log.read().decode(errors="replace").strip().splitlines()[-LINES:]
        text = "\n".join(lines)
        place = f" {self._path}" if self._path else ""
        tail = f"\nThe end of its log{place}:\n{text}" if lines else ""
        if code < 0:
            hint = ", as when memory runs out," if code == -signal.SIGKILL else ""
            message = f"A worker process was ended by {_name(-code)}{hint} {when}.{tail}"
            return WorkerDied(message, signal=-code, log=text)
        why = f": {lines[-1]}" if lines else "."
        return WorkerDied(f"A worker process exited with code {code} {when}{why}{tail}", exit_code=code, log=text)


def _name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
