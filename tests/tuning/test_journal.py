import json

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
