"""OptimizerComparison: what trainings with several optimizers came to, and how far that can be believed."""

import html
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from zoo.evaluation.plots.style import PALETTE, numbers, percent, plain, styled, whole
from zoo.files import make_folder, write_json, writing
from zoo.training.recipe import OPTIMIZERS

COLUMNS = ("optimizer", "rate", "at_edge", "seeds", "accuracy", "low", "high", "deviation", "loss", "seconds")
LOSSES = ("cross_entropy", "loss")  # the first that there is: that without penalties, by which epochs are judged
STYLES = ("-", "--", "-.")  # beside the colours, of which no more than three are told apart by everybody
WIDE = 10  # times between the highest and the lowest mean loss: a linear axis shows nothing of the low ones


@dataclass(frozen=True, eq=False)
class OptimizerComparison:
    """Optimizers side by side. Made by `tuning.compare_optimizers`; print it.

    Attributes:
        trainings: A row a training: optimizer, part ("search" of its rate, or "compared"), rate, seed, status, accuracy
            and loss on dev at its best epoch (NaN where it failed), epochs, best_epoch, seconds, trial (its folder),
            reason (of a failure).
        curves: A row an epoch of each training that is compared: optimizer, rate, seed, epoch, and every metric.
        pictures: Of dev, on which all figures rest.
        about: What all trainings have in common: model, fields, data.
    """

    trainings: pd.DataFrame
    curves: pd.DataFrame
    pictures: int
    about: Mapping[str, Any]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row an optimizer, the best first; those of which no training that is compared was completed come last.

        Columns optimizer; rate, its best; at_edge, whether that is the lowest or the highest that was tried; seeds, how
        many trainings the figures stand for; accuracy on dev, their mean; low, high and deviation, the spread of it
        (lowest, highest, standard deviation of the sample); loss on dev and seconds, means; failures, of all its
        trainings, those of the search included.
        """
        rows = [self._row(name, own) for name, own in self._grouped().items()]
        table = pd.DataFrame(rows, columns=[*COLUMNS, "failures"])
        return table.sort_values(["accuracy", "loss"], ascending=[False, True], ignore_index=True, kind="stable")

    def _grouped(self) -> dict[str, list[dict[str, Any]]]:
        """The trainings of each optimizer."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in self.trainings.to_dict("records"):
            groups.setdefault(row["optimizer"], []).append({str(name): value for name, value in row.items()})
        return groups

    def _row(self, name: str, own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        compared = [row for row in own if row["part"] == "compared"]
        done = [row for row in compared if row["status"] == "completed"]
        rate = compared[0]["rate"] if compared else math.nan
        accuracies = [row["accuracy"] for row in done]
        return {
            "optimizer": name,
            "rate": rate,
            "at_edge": rate in _ends(own),
            "seeds": len(done),
            "accuracy": _mean(accuracies),
            "low": min(accuracies, default=math.nan),
            "high": max(accuracies, default=math.nan),
            "deviation": statistics.stdev(accuracies) if len(done) > 1 else math.nan,
            "loss": _mean([row["loss"] for row in done]),
            "seconds": _mean([row["seconds"] for row in done]),
            "failures": sum(row["status"] == "failed" for row in own),
        }

    @property
    def sentence(self) -> str:
        """Which optimizer is ahead, and of which that can be said: a difference within the spread is none.

        The spread of two is the wider of their ranges from lowest to highest, and one picture at least.
        """
        best, *others = self._ranked()
        if not others:
            return f"Only {best['optimizer']} was trained to the end, so there is nothing to compare."
        if min(row["seeds"] for row in (best, *others)) < 2:
            return "With one training of an optimizer its spread is not known, so no difference is shown."
        tied = [row["optimizer"] for row in others if not self._apart(best, row)]
        ahead = [row["optimizer"] for row in others if self._apart(best, row)]
        if not tied:
            return f"{best['optimizer']} is ahead of {_listed(ahead)} by more than the spread over the seeds."
        behind = f" {_listed(ahead)} {_lie(ahead)} behind by more than that." if ahead else ""
        return (
            f"{best['optimizer']} has the highest mean, but {_listed(tied)} {_lie(tied)} within the spread over the "
            f"seeds: between these no difference is shown.{behind}"
        )

    def _ranked(self) -> list[dict[str, Any]]:
        """The rows of the table of which there are figures, the best first."""
        rows = [{str(name): value for name, value in row.items()} for row in self.table.to_dict("records")]
        return [row for row in rows if row["seeds"]]

    def _apart(self, best: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        spread = max(best["high"] - best["low"], other["high"] - other["low"], 1 / self.pictures)
        return best["accuracy"] - other["accuracy"] > spread + 1e-9

    @property
    def edges(self) -> list[str]:
        """A sentence for each optimizer whose best rate is the lowest or highest that was tried."""
        found = []
        for row in self.table.to_dict("records"):
            if row["at_edge"]:
                name, rate = row["optimizer"], row["rate"]
                end, way = ("highest", "higher") if rate == _ends(self._grouped()[name])[1] else ("lowest", "lower")
                better = f"a {way} one may be better still"
                found.append(f"{name} did best at the {end} rate that was tried, {rate:g}; {better}.")
        return found

    @styled
    def plot(self) -> Figure:
        """Loss and accuracy on dev from epoch to epoch: the mean over the seeds, and a band from lowest to highest.

        The legend is in the order of the result. An optimizer has the same colour in every comparison. The mean of an
        epoch is that of the trainings that came so far.
        """
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        loss = next(f"val_{name}" for name in LOSSES if f"val_{name}" in self.curves)
        for axes, metric, title in (
            (left, loss, "loss on the dev set"),
            (right, "val_accuracy", "accuracy on the dev set"),
        ):
            plain(axes)
            for row in self._ranked():
                self._draw(axes, row, metric)
            axes.set(xlabel="epoch", title=title)
            whole(axes.xaxis)
        percent(right.yaxis)
        curves: Any = self.curves
        means = curves.groupby(["optimizer", "epoch"])[loss].mean()
        low, high = float(means.min()), float(means.max())
        margin = 0.05 * (high - low) or 0.1 * high or 0.1
        if low > 0 and high > WIDE * low:
            left.set_yscale("log")
            left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            numbers(left.yaxis)
            left.set_ylim(low / 1.2, high + margin)
        else:
            left.set_ylim(max(0, low - margin), high + margin)  # bands that go beyond must not press the lines together
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
        return figure

    def _draw(self, axes, row: Mapping[str, Any], metric: str) -> None:
        """The line of an optimizer with its band."""
        name = row["optimizer"]
        number = OPTIMIZERS.index(name)
        color, style = PALETTE[number], STYLES[number % len(STYLES)]
        curves: Any = self.curves
        epochs = curves[curves.optimizer == name].groupby("epoch")[metric].agg(["mean", "min", "max"])
        if row["seeds"] > 1:
            axes.fill_between(epochs.index, epochs["min"], epochs["max"], color=color, alpha=0.15, linewidth=0)
        label = f"{name} {row['accuracy']:.1%}\n(rate {row['rate']:g}, {_seeds(row['seeds'])})"
        marker = "o" if len(epochs) == 1 else ""
        axes.plot(epochs.index, epochs["mean"], color=color, linestyle=style, marker=marker, linewidth=1.8, label=label)

    def figures(self) -> dict[str, Any]:
        """All of it but the curves as plain values, ready for JSON."""
        return {
            **self.about,
            "dev_pictures": self.pictures,
            "table": _records(self.table),
            "sentence": self.sentence,
            "edges": self.edges,
            "trainings": _records(self.trainings),
        }

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes table.csv, trainings.csv, curves.csv, plot.png and comparison.json.

        Raises:
            OSError: If the folder cannot be made or written.
        """
        folder = make_folder(folder)
        for name in ("table", "trainings", "curves"):
            with writing(folder / f"{name}.csv") as temporary:
                getattr(self, name).to_csv(temporary, index=False)
        with writing(folder / "plot.png") as temporary:
            self.plot().savefig(temporary, dpi=150)
        write_json(folder / "comparison.json", self.figures())
        return folder

    @property
    def _head(self) -> str:
        return f"{self.about['model']}: accuracy on {self.pictures} dev pictures, each optimizer at its best rate"

    def _cells(self) -> list[tuple[str, ...]]:
        """The table as text, its first row the titles."""
        titles = (
            "optimizer",
            "rate",
            "accuracy",
            "lowest to highest",
            "deviation",
            "loss",
            "seeds",
            "seconds",
            "failed",
        )
        cells: list[tuple[str, ...]] = [titles]
        for row in self.table.to_dict("records"):
            rate = f"{row['rate']:g}{'*' * row['at_edge']}"
            figures = ("",) * 7
            if row["seeds"]:
                figures = (
                    f"{row['accuracy']:.1%}",
                    f"{row['low']:.1%} to {row['high']:.1%}",
                    "" if math.isnan(row["deviation"]) else f"{row['deviation']:.1%}",
                    f"{row['loss']:.4f}",
                    str(row["seeds"]),
                    f"{row['seconds']:.1f}",
                )
            cells.append((row["optimizer"], rate, *figures[:6], str(row["failures"])))
        return cells

    def __str__(self):
        cells = self._cells()
        widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
        lines = [self._head]
        for name, *rest in cells:
            figures = (text.rjust(width) for text, width in zip(rest, widths[1:], strict=True))
            lines.append("  ".join(["", name.ljust(widths[0]), *figures]).rstrip())
        return "\n".join([*lines, *(f"* {sentence}" for sentence in self.edges), self.sentence])

    def _repr_html_(self):
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self._cells())
        notes = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in (*self.edges, self.sentence))
        return f"<h4>{html.escape(self._head)}</h4><table>{rows}</table>{notes}"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts; nothing in place of NaN, which JSON lacks."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _ends(own: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The lowest and the highest rate of a search."""
    tried = [row["rate"] for row in own if row["part"] == "search"]
    return min(tried), max(tried)


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _lie(names: Sequence[str]) -> str:
    return "lies" if len(names) == 1 else "lie"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"
