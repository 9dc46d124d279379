import pytest

from callbacks import locking
from tuning import journal, place

RUN = ("recipe.json", "history.csv", "model.keras")


@pytest.fixture
def folder(tmp_path):
    """One that somebody worked in: the files of a lock are there."""
    locking.hold(tmp_path).release()
    for name in locking.FILES:
        (tmp_path / name).touch()
    return tmp_path


def folder_of(folder):
    return place.folder_of(folder, what="search", resume=True)


@pytest.mark.parametrize("others", [RUN, (place.REFERENCE, *RUN), ("letter.txt",), (".reference.txt",)])
def test_a_folder_with_a_lock_and_other_things_is_refused(folder, others):
    for name in others:
        (folder / name).touch()
    with pytest.raises(ValueError, match="exists and holds no search. Choose another directory."):
        folder_of(folder)


def test_somebody_elses_references_are_refused(tmp_path):
    (tmp_path / place.REFERENCE).mkdir()
    with pytest.raises(ValueError, match="exists and holds no search"):
        folder_of(tmp_path)


@pytest.mark.parametrize(
    "left",
    [(), (place.REFERENCE,), (place.REFERENCE, place.LOGS), (".reference-ab12.tmp",), (".reference-ab12.tmp.old",)],
)
def test_what_ended_before_its_journal_began_is_gone_on_with(folder, left):
    for name in left:
        (folder / name).mkdir()
    assert folder_of(folder) == folder


def test_a_journal_is_a_search_whatever_lies_beside_it(tmp_path):
    for name in (journal.NAME, *RUN):
        (tmp_path / name).touch()
    assert folder_of(tmp_path) == tmp_path


def test_a_folder_that_is_empty_or_not_there_is_free(tmp_path):
    assert folder_of(tmp_path) == tmp_path
    assert folder_of(tmp_path / "new") == tmp_path / "new"
