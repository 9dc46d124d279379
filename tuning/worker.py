"""The process that runs tasks for `tuning.executor.WorkerPool`, which starts it as `python -m tuning.worker`.

A task and its answer are pickles, between our own processes only, each with its length before it. Nothing heavy is
imported here: a task brings what it needs. The process ends at once, in the middle of a task too, when its parent is
gone or hangs up, and takes along whatever its tasks have started.
"""

import contextlib
import faulthandler
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO

GREETING = b"\x00tuning.worker is ready\n"  # the first that the parent reads; what comes before was printed by others
SERVE = "--serve"
_LENGTH = struct.Struct(">Q")
_PULSE = 0.5  # seconds between two looks at whether the parent lives


def send(stream: BinaryIO, payload: bytes) -> None:
    """Writes a frame: eight bytes of length, and the payload."""
    stream.write(_LENGTH.pack(len(payload)))
    stream.write(payload)
    stream.flush()


def receive(stream: BinaryIO) -> bytes | None:
    """The payload of the next frame; None at the end of the stream, in the middle of a frame too."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    payload = stream.read(length)
    return payload if len(payload) == length else None


def end_group(leader: int) -> None:
    """Ends a process that leads a session of its own, and what it has started; nothing happens where it is gone."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(leader, signal.SIGKILL)
        else:
            os.kill(leader, signal.SIGTERM)  # which is final on Windows


def main() -> None:
    """Runs tasks until the parent hangs up."""
    if sys.argv[1:] != [SERVE]:
        sys.exit("tuning.worker runs the trials of a search, which starts it by itself: call tuning.search.")
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    requests, answers = _own_pipes()
    faulthandler.enable(all_threads=False)  # a crash leaves its place in the log
    threading.Thread(target=_listen, args=(requests, tasks), daemon=True).start()
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    answers.write(GREETING)
    answers.flush()
    while True:
        answer = _answer(tasks.get())
        _flush()
        send(answers, answer)


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output under new numbers; a task reads nothing, and what it prints goes to the log."""
    requests, answers = os.dup(0), os.dup(1)  # which no process that a task starts inherits
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb")


def _listen(requests: BinaryIO, tasks: queue.SimpleQueue) -> None:
    while (payload := receive(requests)) is not None:
        tasks.put(payload)
    _end()


def _watch(parent: int) -> None:
    """Ends this process when its parent is another: a fork of the first one may still hold the pipe."""
    while os.getppid() == parent:
        time.sleep(_PULSE)
    _end()


def _end() -> None:
    if os.name == "posix" and os.getpgrp() == os.getpid():
        end_group(os.getpid())
    os._exit(1)


def _answer(payload: bytes) -> bytes:
    """What a task came to, as the parent reads it: whether it ended well, its result or exception, the traceback."""
    try:
        function, args, kwargs = _task(payload)
        return _pickled(True, function(*args, **kwargs), "")
    except BaseException as error:
        text = traceback.format_exc()
        if isinstance(error, Exception):  # SystemExit would end whoever asks the future for its result
            with contextlib.suppress(Exception):
                answer = _pickled(False, error, text)
                pickle.loads(answer)  # exceptions with arguments of their own may fail only here
                return answer
        return _pickled(False, RuntimeError(f"{type(error).__name__}: {error}"), text)


def _task(payload: bytes) -> Any:
    try:
        return pickle.loads(payload)
    except Exception as error:
        error.add_note(
            "The task could not be read in its process: the modules of its function and arguments must be importable "
            "there, and the main script never is."
        )
        raise


def _pickled(*answer: Any) -> bytes:
    return pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL)


def _flush() -> None:
    """Brings to the log what Python and C still hold of it."""
    with contextlib.suppress(Exception):  # a task may have closed or replaced them
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).fflush(None)


if __name__ == "__main__":
    main()
