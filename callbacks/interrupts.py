"""SIGTERM and SIGINT taken note of, so that a fit can end where it can go on."""

import atexit
import gc
import os
import signal
import sys
import threading
import weakref
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit, KeyboardInterrupt):
    """The end of a program after a signal, without a traceback; caught as a KeyboardInterrupt by who waits for one."""


class Interrupts:
    """Notes a signal instead of obeying it at once; the second one is obeyed.

    Attributes:
        received: The signal, or None.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._model: Any = lambda: None
        self._before: dict[int, Any] = {}

    def listen(self, model) -> None:
        """Puts itself in the place of the handlers while a model is fitted.

        Handlers that are not Python's stay, as do all of them where the fit runs in another thread.
        """
        self.stop()
        self.received, self._model = None, weakref.ref(model)
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            before: Any = signal.getsignal(number)
            while isinstance(other := getattr(before, "__self__", None), Interrupts):
                if other._fits(sys._getframe()):
                    break
                before = other._before.get(number, signal.SIG_DFL)  # its fit ended with an error
            if before is not None and before != signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._note)

    def stop(self) -> None:
        """Puts the handlers back."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, before)
        self._before = {}

    def obey(self, message: str) -> None:
        """Ends the program as the signal would have, and says a sentence on standard error.

        Raises:
            Stopped: With the status that the signal has in a shell.
            KeyboardInterrupt: With the message, on SIGINT where a person types, who wants to go on typing.
        """
        self.stop()
        number = self.received or signal.SIGTERM
        if number == signal.SIGINT and hasattr(sys, "ps1"):
            raise KeyboardInterrupt(message)
        # TensorFlow's iterators over Python generators wait for ever where they are freed behind the end of Python.
        atexit.register(gc.collect)
        os.write(2, f"{message}\n".encode())
        raise Stopped(128 + number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None or not self._fits(frame):  # a fit that raised could not put the handlers back
            self.stop()
            signal.raise_signal(number)
            return
        self.received = signal.Signals(number)
        name = self.received.name
        os.write(2, f"\n{name}: the step is finished and saved first; once more stops at once.\n".encode())

    def _fits(self, frame: FrameType | None) -> bool:
        """Whether the model is being fitted below a frame."""
        model = self._model()
        while frame is not None and model is not None:
            if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
                return True
            frame = frame.f_back
        return False
