import contextlib
import errno
import json
import os
import signal

import pytest

from tuning.journal import NAME, Journal

EVENTS = [{"event": "search", "name": "größe"}, {"event": "begin", "values": [1, 0.1, None]}, {"event": "ended"}]


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    for event in EVENTS:
        journal.append(event)
    yield journal
    journal.close()


def test_events_come_back_in_order(journal, tmp_path):
    assert journal.events() == EVENTS
    assert Journal(tmp_path).events() == EVENTS


def test_a_folder_without_a_journal_has_no_events(tmp_path):
    assert Journal(tmp_path).events() == []


@contextlib.contextmanager
def room(size):
    """No file grows beyond so many bytes: what still fits is written, as on a full disk, and then nothing is."""
    resource = pytest.importorskip("resource", reason="no limits on this system")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("fits", [0, 1, 12])
def test_what_does_not_fit_leaves_no_half_line_and_more_may_follow(journal, tmp_path, fits):
    before = (tmp_path / NAME).read_bytes()
    with room(len(before) + fits), pytest.raises(OSError) as caught:
        journal.append({"event": "too long"})
    assert caught.value.errno == errno.EFBIG
    assert (tmp_path / NAME).read_bytes() == before

    journal.append({"event": "more"})
    assert Journal(tmp_path).events() == [*EVENTS, {"event": "more"}]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no file here that cannot be cut")
def test_half_a_line_that_cannot_be_taken_back_is_never_added_to(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    file = os.memfd_create("journal", os.MFD_ALLOW_SEALING)
    (tmp_path / NAME).symlink_to(f"/proc/self/fd/{file}")
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    journal = Journal(tmp_path)
    journal.append(EVENTS[0])
    end = os.fstat(file).st_size
    with room(end + 12), pytest.raises(OSError):
        journal.append({"event": "too long"})
    assert os.fstat(file).st_size == end + 12

    with pytest.raises(PermissionError):
        journal.append({"event": "more"})
    assert Journal(tmp_path).events() == EVENTS[:1]
    os.close(file)


@pytest.mark.parametrize("torn", [b'{"event": "sta', b'{"event": "started"}', "größ".encode()[:4], b"\n", b"\0" * 100])
def test_a_torn_line_at_the_end_is_dropped(journal, tmp_path, torn):
    journal.close()
    with open(tmp_path / NAME, "ab") as file:
        file.write(torn)
    again = Journal(tmp_path)

    assert again.events() == EVENTS

    again.append({"event": "more"})
    again.close()
    assert [json.loads(line) for line in (tmp_path / NAME).read_text().splitlines()] == [*EVENTS, {"event": "more"}]


def test_every_prefix_of_the_file_is_a_journal(journal, tmp_path):
    journal.close()
    whole = (tmp_path / NAME).read_bytes()
    for length in range(len(whole)):
        (tmp_path / NAME).write_bytes(whole[:length])
        assert Journal(tmp_path).events() == EVENTS[: whole[:length].count(b"\n")]


def test_a_damaged_line_in_the_middle_is_named(journal, tmp_path):
    journal.close()
    lines = (tmp_path / NAME).read_text().splitlines(keepends=True)
    (tmp_path / NAME).write_text(lines[0] + "{]\n" + lines[2])

    with pytest.raises(ValueError, match="Line 2 of .*journal.jsonl is damaged"):
        Journal(tmp_path).events()


def test_what_other_readers_could_not_read_is_refused_and_leaves_no_trace(journal):
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append({"event": "ended", "score": float("nan")})

    assert journal.events() == EVENTS
