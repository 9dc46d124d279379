"""What a search's first trial is called, wherever something is said of it."""

KNOWN_GOOD = "the known-good recipe"
READY = ("head", "transfer", "scratch")


def first_of(result) -> str:
    """The first trial in words: the known-good recipe of a ready space, whose defaults are what `fine_tune` chooses.

    In a function of one's own, defaults are what KerasTuner makes of it: of a range without one the lower end.

    Args:
        result: A SearchResult.
    """
    ready = result.space_name in READY and result.header.get("ready", True)
    return KNOWN_GOOD if ready else "the first trial"
