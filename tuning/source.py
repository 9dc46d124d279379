"""Orders for trials, from what the algorithm proposes and what the journal says."""

import traceback
from pathlib import Path
from typing import Any

from tuning.asked import Asked
from tuning.journal import Journal
from tuning.loop import DONE, NO_RECIPE, WAIT, failure, now
from tuning.place import REFERENCE, TRIALS
from tuning.proposals import DONE as EXHAUSTED
from tuning.proposals import WAIT as NOT_YET
from tuning.proposals import Proposal, Proposals
from tuning.pruning import medians
from tuning.space import plain
from zoo.files import make_folder, write_text
from zoo.wording import said


class Source:
    """Orders from what the algorithm proposes; the state of a search, as its journal tells it.

    Args:
        asked: What was asked for.
        folder: That of the search.
        journal: Where proposals are written down.
        events: Those of the journal.
        trials: How many there shall be.
    """

    def __init__(self, asked: Asked, folder: Path, journal: Journal, events: list[dict], trials: int):
        self._asked = asked
        self._folder = folder
        self._journal = journal
        self._trials = trials
        self.events = events
        self._proposals = Proposals(
            asked.space.hyperparameters,
            asked.space.defaults,
            algorithm=asked.algorithm,
            objective=asked.objective,
            direction=asked.direction,
            seed=asked.seed,
            epochs=asked.epochs,
            idle=asked.space.idle,
        )
        self._proposed = [event for event in events if event["event"] == "proposed"]
        self._results = {event["result"]["trial"]: event["result"] for event in events if event["event"] == "ended"}
        self._proposals.rebuild([step for event in events if (step := _step(event)) is not None])
        self._again = [event for event in self._proposed if event["trial"] not in self._results]

    def next(self) -> Any:
        """The order of the next trial: first those that were running when the search was cut short."""
        if self._again:
            event = self._again.pop(0)
            made, idle, refused = self._made(event["values"]) if event["made"] is None else (event["made"], [], None)
            return self._order({**event, "made": made}) if refused is None else self._refusal(event["trial"], refused)
        if len(self._proposed) >= self._trials:
            return DONE
        proposal = self._proposals.propose()
        if not isinstance(proposal, Proposal):
            if proposal is EXHAUSTED and self.events[-1]["event"] != "exhausted":
                self._note({"event": "exhausted", "time": now(), "trials": len(self._proposed)})
            return {NOT_YET: WAIT, EXHAUSTED: DONE}[proposal]
        values = plain(proposal.values)
        made, idle, refused = self._made(values)
        event = {
            "event": "proposed",
            "time": now(),
            "trial": proposal.trial,
            "values": values,
            "idle": idle,
            "epochs": proposal.epochs,
            "continues": proposal.continues,
            "made": made,
            "thresholds": medians(list(self._results.values()), self._asked.direction) if self._asked.pruning else None,
        }
        self._note(event)
        self._proposed.append(event)
        return self._order(event) if refused is None else self._refusal(proposal.trial, refused)

    def ended(self, order: dict, result: dict) -> None:
        """Tells the algorithm."""
        self.events.append({"event": "ended", "time": now(), "result": result})
        self._results[order["trial"]] = result
        self._proposals.tell(order["trial"], None if result["status"] == "failed" else result["score"])

    def _note(self, event: dict) -> None:
        self._journal.append(event)
        self.events.append(event)

    def _made(self, values: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str], Exception | None]:
        """What a trial of some values trains, which of them make no difference, and what the space raised if so."""
        try:
            return self._asked.made(values), self._asked.space.idle(values), None
        except Exception as error:  # whatever a function raises that makes no recipe of these values
            return None, [], error

    def _refusal(self, trial: str, error: Exception) -> dict:
        """A trial that has failed before it could begin."""
        place = f"{TRIALS}/{trial}/traceback.txt"
        make_folder(self._folder / TRIALS / trial)
        write_text(self._folder / place, "".join(traceback.format_exception(error)))
        return {"trial": trial, "result": failure(trial, NO_RECIPE, f"the space makes no recipe: {said(error)}", place)}

    def _order(self, event: dict) -> dict:
        """What a trial needs to know, all of it."""
        continues = event["continues"]
        earlier = self._results[continues]["attempt"] if continues else None
        return {
            "trial": event["trial"],
            "folder": str(self._folder / TRIALS / event["trial"]),
            "reference": str(self._folder / REFERENCE),
            **event["made"],
            "objective": self._asked.objective,
            "direction": self._asked.direction,
            "stop_after": event["epochs"],
            "continues": str(self._folder / TRIALS / continues / earlier) if continues else None,
            "thresholds": event["thresholds"],
        }


def _step(event: dict) -> Any:
    """An event as the algorithm saw it."""
    if event["event"] == "proposed":
        return Proposal(event["trial"], event["values"], event["epochs"], event["continues"])
    if event["event"] == "ended":
        result = event["result"]
        return result["trial"], None if result["status"] == "failed" else result["score"]
    return None
