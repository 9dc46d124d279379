"""Functions that the tests run in other processes."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Picky(Exception):
    """One that is pickled, and then cannot be made again."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class Stubborn(Exception):
    """One that cannot be pickled."""

    def __reduce__(self):
        raise TypeError("I stay here")


def whereabouts():
    """Number of the process, its session and its parent."""
    return os.getpid(), os.getsid(0), os.getppid()


def process_number(_=None):
    return os.getpid()


def echo(*args, **kwargs):
    return args, kwargs


def variables(*names):
    return [os.environ.get(name) for name in names]


def imported():
    return sorted(sys.modules)


def talk():
    """Says something in every way there is, and reads what there is to be read."""
    print("python says")
    sys.stderr.write("python complains\n")
    os.write(1, b"the descriptor says\n")
    ctypes.CDLL(None).puts(b"C says")
    subprocess.run([sys.executable, "-c", "print('a child says')"], check=True)
    return sys.stdin.read()


def fail(kind="ValueError"):
    if kind == "SystemExit":
        sys.exit("enough")
    if kind == "Picky":
        raise Picky("this", "that")
    if kind == "Stubborn":
        raise Stubborn("no way")
    raise ValueError("seven is no colour")


def something_local():
    """What cannot be pickled."""
    return lambda: 0


def die(how):
    """Ends its own process."""
    print("last words", flush=True)
    if how == "exit":
        os._exit(3)
    if how == "fork":  # leaves a child behind that holds all it was given
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "hang up":
        os.closerange(3, 100)
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(path):
    """Waits for a file, and says what is in it."""
    while not Path(path).exists():
        time.sleep(0.01)
    return Path(path).read_text()


def scribble(folder):
    """Writes on and on, beside a process that it has started; leaves the numbers of both."""
    child = subprocess.Popen(["sleep", "600"])
    here = Path(folder) / str(os.getpid())
    here.with_suffix(".new").write_text(str(child.pid))
    here.with_suffix(".new").rename(here.with_suffix(".pids"))
    with open(here.with_suffix(".txt"), "w") as file:
        while True:
            file.write("again\n")
            file.flush()
            time.sleep(0.005)


def begin(path, number, go):
    """Adds a line that says which number was begun by whom, and gives the number once there is a file to go on."""
    with open(path, "a") as file:
        file.write(f"{number} {os.getpid()}\n")
    wait_for(go)
    return number
