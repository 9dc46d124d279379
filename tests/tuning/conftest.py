"""What tests of searches share: pictures that take no time, and executors."""

from concurrent.futures import Executor, Future

import pytest

import zoo


class InProcess(Executor):
    """Runs a task at once, in this process; counts them."""

    def __init__(self):
        self.ran = []

    def submit(self, fn, /, *args, **kwargs):
        self.ran.append(args)
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def in_process():
    """An executor that runs a trial at once, in this process, and counts them in `ran`."""
    return InProcess()


@pytest.fixture(scope="module")
def another_in_process():
    """One for what a whole file of tests shares."""
    return InProcess()


@pytest.fixture(scope="session")
def few_digits(digit_pictures):
    """Sixty pictures of 8x8 in three classes, as data with 36 for training and 12 for dev."""
    images, labels = digit_pictures
    return zoo.load_data((images[:60], labels[:60]), image_size=8, split=(0.6, 0.2, 0.2), group=None)
