"""The loop around trials, with trials that take no time."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tuning.executor import WorkerDied
from tuning.journal import Journal
from tuning.loop import DONE, WAIT, SearchStopped, checked_executor, failure, run_all, width_of, work


class Listed:
    """Orders by number; one that was told to waits until all others have ended."""

    def __init__(self, number, last_waits=False):
        self.waiting = [{"trial": f"{i:04d}"} for i in range(number)]
        self.running = 0
        self.results = []
        self.last_waits = last_waits

    def next(self):
        if self.last_waits and len(self.waiting) == 1 and self.running:
            return WAIT
        if not self.waiting:
            return DONE
        self.running += 1
        return self.waiting.pop(0)

    def ended(self, order, result):
        self.running -= 1
        self.results.append(result)


def result(order, **changes):
    return {**failure(order["trial"], "", ""), "status": "completed", "score": 0.5, **changes}


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    yield journal
    journal.close()


def names(journal):
    return [(event["event"], event.get("trial") or event["result"]["trial"]) for event in journal.events()]


def test_each_trial_is_written_down_before_and_after(journal, in_process):
    assert work(Listed(2), in_process, journal, width=1, run=result)
    assert names(journal) == [("started", "0000"), ("ended", "0000"), ("started", "0001"), ("ended", "0001")]


def test_a_source_that_waits_is_asked_again_once_something_ended(journal, in_process):
    orders = Listed(3, last_waits=True)
    assert work(orders, in_process, journal, width=3, run=result)
    assert [result["trial"] for result in orders.results] == ["0000", "0001", "0002"]


def test_a_trial_whose_process_died_is_run_again_and_counted_once(journal, in_process):
    deaths = [WorkerDied("killed", signal=signal.SIGKILL), None]

    def run(order):
        if deaths and (death := deaths.pop(0)):
            raise death
        return result(order)

    orders = Listed(1)
    assert work(orders, in_process, journal, width=1, run=run)
    assert names(journal) == [("started", "0000"), ("started", "0000"), ("ended", "0000")]
    assert [result["status"] for result in orders.results] == ["completed"]


def test_a_trial_that_kills_every_process_is_a_failed_one(journal, in_process, tmp_path):
    halved = []

    def run(order):
        halved.append(order.get("halve", False))
        raise WorkerDied("signal 9\nThe end of its log:\ngreetings", signal=signal.SIGKILL)

    orders = Listed(1)
    assert work(orders, in_process, journal, width=1, run=run)
    (ended,) = orders.results
    assert ended["status"] == "failed"
    assert ended["kind"] == "process died"
    assert ended["reason"] == "its process died 3 times: signal 9"
    assert "greetings" in (tmp_path / ended["traceback"]).read_text()
    assert halved == [False, False, True]  # memory may have run out
    assert len(in_process.ran) == 3


@pytest.mark.parametrize("death", [signal.SIGTERM, None])
def test_batches_are_not_halved_after_other_deaths(journal, in_process, death):
    halved = []

    def run(order):
        halved.append(order.get("halve", False))
        raise WorkerDied("gone", signal=death)

    assert work(Listed(1), in_process, journal, width=1, run=run)
    assert halved == [False] * 3


@pytest.mark.parametrize(
    "changes",
    [{"score": None}, {"score": float("nan")}, {"score": "0.5"}, {"trial": "0099"}, {"status": "fine"}],
)
def test_what_is_no_result_of_a_trial_does_not_get_into_the_journal(journal, in_process, changes):
    with pytest.raises(SearchStopped, match="InProcess gave something for trial 0000 that is no result of it"):
        work(Listed(1), in_process, journal, width=1, run=lambda order: {**result(order), **changes})
    assert names(journal) == [("started", "0000")]


@pytest.mark.parametrize("rubbish", [None, {}, "text", {"trial": "0000"}])
def test_rubbish_of_an_executor_stops_the_search(journal, in_process, rubbish):
    with pytest.raises(SearchStopped, match="is no result of it: "):
        work(Listed(1), in_process, journal, width=1, run=lambda order: rubbish)
    assert names(journal) == [("started", "0000")]


def test_rubbish_that_comes_at_the_end_is_left_out(journal, in_process):
    def run(order):
        if order["trial"] == "0000":
            raise FileNotFoundError("no such folder")
        return None

    with pytest.raises(SearchStopped, match="no such folder"):
        work(Listed(2), in_process, journal, width=2, run=run)
    assert names(journal) == [("started", "0000"), ("started", "0001")]


def test_a_trial_that_failed_before_it_began_is_told_and_not_run(journal, in_process):
    orders = Listed(2)
    orders.waiting[0]["result"] = failure("0000", "no recipe", "no such thing")
    told = []

    class Watcher:
        started = tick = lambda *_: None

        def ended(self, order, result):
            told.append((order["trial"], result["status"]))

    assert work(orders, in_process, journal, width=1, run=result, watcher=Watcher())
    assert names(journal) == [("ended", "0000"), ("started", "0001"), ("ended", "0001")]
    assert told == [("0000", "failed"), ("0001", "completed")]


def test_a_class_is_no_executor():
    with pytest.raises(TypeError, match="Received: the class ThreadPoolExecutor"):
        checked_executor(ThreadPoolExecutor)


def failing(kinds):
    """Trials that fail for reasons in turn; None for one that ends well."""
    left = list(kinds)

    def run(order):
        kind = left.pop(0)
        # numbers differ from trial to trial, as the learning rate does in a message
        reason = f"{kind} at a rate of 1.{len(left)}e-05 after {len(left)} steps"
        return result(order, status="failed", score=None, kind=kind, reason=reason) if kind else result(order)

    return run


def test_five_failures_for_one_reason_end_the_search(journal, in_process):
    with pytest.raises(SearchStopped, match="5 trials in a row failed for the same reason.*not finite at a rate"):
        work(Listed(20), in_process, journal, width=1, run=failing(["not finite"] * 20))
    assert len(in_process.ran) == 5


@pytest.mark.parametrize("kinds", [["a", "b"] * 5, ["a", "a", "a", "a", None] * 2])
def test_failures_for_several_reasons_or_with_successes_between_do_not(journal, in_process, kinds):
    assert work(Listed(10), in_process, journal, width=1, run=failing(kinds))
    assert len(in_process.ran) == 10


def test_an_executor_that_takes_no_more_stops_the_search(journal):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(SearchStopped, match="ThreadPoolExecutor takes no more trials"):
        work(Listed(1), pool, journal, width=1, run=result)


def test_what_keeps_a_trial_from_running_is_no_failure_of_the_trial(journal, in_process):
    def run(order):
        raise FileNotFoundError("There is no such folder here")

    orders = Listed(20)
    with pytest.raises(SearchStopped, match="Trial 0000 could not be run: There is no such folder here"):
        work(orders, in_process, journal, width=1, run=run)
    assert names(journal) == [("started", "0000")]
    assert orders.results == []


def test_when_the_time_is_up_nothing_more_begins(journal, in_process):
    assert not work(Listed(3), in_process, journal, width=1, run=result, deadline=0.0)
    assert in_process.ran == []


def test_what_an_executor_goes_on_with_is_told_that_it_was_left(journal, tmp_path):
    begun, told = threading.Event(), threading.Event()

    def run(order):
        begun.set()
        while not Path(order["left"]).exists():
            time.sleep(0.01)
        told.set()
        return result(order)

    orders = Listed(2)
    for order in orders.waiting:
        order["folder"] = str(tmp_path / order["trial"])
    with ThreadPoolExecutor(1) as pool:
        assert not work(orders, pool, journal, width=2, run=run, deadline=time.monotonic() + 1)
        assert begun.is_set()
        assert told.wait(20)
    assert orders.results == []
    assert not (tmp_path / "0001").exists()  # it had not begun, and was taken back


def test_results_of_known_orders_come_in_their_order_and_are_kept(tmp_path, in_process):
    orders = [{"trial": name} for name in ("b", "a", "c")]
    run_all(orders[:1], directory=tmp_path, executor=in_process, run=result)
    found = run_all(orders, directory=tmp_path, executor=in_process, run=result)

    assert [each["trial"] for each in found] == ["b", "a", "c"]
    assert len(in_process.ran) == 3


def test_width_is_what_an_executor_says():
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(4) as processes:
        assert width_of(threads) == 3
        assert width_of(processes) == 4
    assert width_of(object()) == 2
