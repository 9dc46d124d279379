"""learning_curve: the error on dev against the number of training pictures, and what more of them would bring."""

import html
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from zoo.data.collection import Data
from zoo.evaluation.figures import wilson
from zoo.files import make_folder, shown, write_json, writing
from zoo.training import power_law, preparing
from zoo.training.fewer import trainings
from zoo.training.power_law import PowerLaw
from zoo.training.recipe import Recipe
from zoo.training.run import Run

NAME = "learning_curve"  # of its files
STEPS, SMALLEST = 5, 0.1  # sizes where none are given, and the smallest of them as a share of all
FARTHEST = 10  # times as many pictures as there are: no law is believed beyond
SLIGHT = 0.002  # of error, 0.2 points: what is not worth a picture


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """The error on dev against the number of training pictures. Made by `learning_curve`; print it.

    Attributes:
        table: A row a training: pictures, per_class (on average), error (the share of dev that was wrong), low and high
            (95 %, Wilson 1927), seed.
        recipe: How each was trained.
        pictures: Training pictures that there are.
        classes: Number of classes.
        counted: Pictures of dev.
    """

    table: pd.DataFrame
    recipe: Recipe
    pictures: int
    classes: int
    counted: int

    @cached_property
    def means(self) -> pd.DataFrame:
        """A row a size: pictures, per_class, error (mean over the seeds), low, high, seeds (how many)."""
        errors = self.table.groupby("pictures").error.agg(["mean", "size"])
        numbers = errors.index.to_numpy()
        bounds = [wilson(error * self.counted, self.counted) for error in errors["mean"]]
        return pd.DataFrame(
            {
                "pictures": numbers,
                "per_class": numbers / self.classes,
                "error": errors["mean"].to_numpy(),
                "low": [low for low, _ in bounds],
                "high": [high for _, high in bounds],
                "seeds": errors["size"].to_numpy(),
            }
        )

    @cached_property
    def law(self) -> PowerLaw | None:
        """a, b, c of error = a + b * pictures ** -c, fitted to the means; None with under three sizes or no fall."""
        return power_law.fit(self.means.pictures.tolist(), self.means.error.tolist(), self.counted)

    def predict(self, pictures: float) -> float:
        """The error that the law expects at a number of training pictures.

        Args:
            pictures: From the smallest size measured to ten times the pictures that there are.

        Raises:
            ValueError: If `pictures` lies outside, or there is no law.
        """
        least, most = int(self.means.pictures.min()), FARTHEST * self.pictures
        if not (_number(pictures) and least <= pictures <= most):
            raise ValueError(
                f"`pictures` must lie from {least}, the smallest size measured, to {most}, {FARTHEST} times what there "
                f"is: beyond, no law is to be believed. Received: pictures={pictures!r}"
            )
        return self._believed.error(pictures)

    def gain(self, per_class: float) -> tuple[float, float, float]:
        """By how much so many more training pictures a class would bring the error down.

        Args:
            per_class: Pictures of each class, beside those that there are.

        Returns:
            The fall of the error, 0.011 for 1.1 points, and its 95 % interval (bootstrap): value, low, high.

        Raises:
            ValueError: If `per_class` is not above 0, leads beyond ten times what there is, or there is no law.
        """
        most = (FARTHEST - 1) * self.pictures / self.classes
        if not (_number(per_class) and 0 < per_class <= most):
            raise ValueError(
                f"`per_class` must be above 0 and at most {most:.0f}, which makes {FARTHEST} times the pictures that "
                f"there are: beyond, no law is to be believed. Received: per_class={per_class!r}"
            )
        more = self.pictures + per_class * self.classes

        def fall(law):
            return law.error(self.pictures) - law.error(more) if law else 0.0

        value = fall(self._believed)
        low, high = np.percentile([fall(law) for law in self._draws], [2.5, 97.5])
        return value, min(value, float(low)), max(value, float(high))

    @property
    def sentence(self) -> str:
        """What more pictures would bring, or why nothing can be said of it."""
        if self.law is None:
            return self._why_not
        per_class = self._doubled
        value, low, high = self.gain(per_class)
        if high < SLIGHT:
            return f"More pictures of this kind would bring less than {_points(SLIGHT)} points."
        if value < SLIGHT:
            return f"{per_class} more pictures a class would bring less than {_points(high + 0.0005)} points."
        return (
            f"{per_class} more pictures a class would bring about {_points(value)} points "
            f"({_points(low)} to {_points(high)})."
        )

    def figures(self) -> dict:
        """All of it as plain numbers, ready for JSON."""
        return {
            "recipe": self.recipe.to_dict(),
            "pictures": self.pictures,
            "classes": self.classes,
            "dev_pictures": self.counted,
            "sizes": self.means.pictures.tolist(),
            "seeds": sorted(self.table.seed.unique().tolist()),
            "means": self.means.to_dict("records"),
            "law": self.law and self.law._asdict(),
            "sentence": self.sentence,
        }

    def save(self, folder: str | os.PathLike) -> Path:
        """Writes the table as `learning_curve.csv`, and the law and how it came about as `learning_curve.json`.

        Raises:
            OSError: If the folder cannot be made or written.
        """
        folder = make_folder(folder)
        with writing(folder / f"{NAME}.csv") as temporary:
            self.table.to_csv(temporary, index=False)
        write_json(folder / f"{NAME}.json", self.figures())
        return folder

    @property
    def _believed(self) -> PowerLaw:
        if self.law is None:
            raise ValueError(self._why_not)
        return self.law

    @property
    def _why_not(self) -> str:
        if len(self.means) < power_law.FEWEST:
            return f"What more pictures would bring takes {power_law.FEWEST} sizes to say; here are {len(self.means)}."
        first, last = (self.means.iloc[row] for row in (0, -1))
        return (
            f"What more pictures would bring cannot be said: the error does not fall from {first.pictures:.0f} "
            f"({first.error:.1%}) to {last.pictures:.0f} ({last.error:.1%})."
        )

    @cached_property
    def _draws(self) -> list[PowerLaw | None]:
        errors = [rows.error.tolist() for _, rows in self.table.groupby("pictures")]
        return power_law.draws(self.means.pictures.tolist(), np.array(errors), self.counted, self._believed)

    @property
    def _doubled(self) -> int:
        """As many more a class as there are, in one figure and zeros."""
        there = self.pictures / self.classes
        step = 10 ** int(np.log10(max(there, 1)))
        return max(1, round(there / step)) * step

    @property
    def _head(self) -> str:
        seeds = self.table.seed.nunique()
        return f"{self.recipe.model}: error on {self.counted} dev pictures, mean of {seeds} seed{'s' * (seeds != 1)}"

    def _rows(self) -> list[tuple[str, ...]]:
        """Pictures, pictures a class, error, interval, and what the law says."""
        return [
            (
                f"{row['pictures']:.0f}",
                f"{row['per_class']:.4g}",
                f"{row['error']:.1%}",
                f"{row['low']:.1%} to {row['high']:.1%}",
                f"{self.law.error(row['pictures']):.1%}" if self.law else "",
            )
            for row in self.means.to_dict("records")
        ]

    def _formula(self) -> str:
        law = self.law
        return f"error = {law.a:.4f} + {law.b:.4g} * pictures ** -{law.c:.3f}" if law else ""

    def __str__(self):
        titles = ("pictures", "a class", "error", "95 % interval", "law" if self.law else "")
        lines = [self._head]
        for row in (titles, *self._rows()):
            lines.append("  {:>9} {:>9} {:>8} {:>18} {:>8}".format(*row).rstrip())
        lines += [f"  {self._formula()}"] if self.law else []
        return "\n".join([*lines, self.sentence])

    def _repr_html_(self):
        titles = ("pictures", "a class", "error", "95 % interval", "law")
        rows = ["".join(f"<td>{cell}</td>" for cell in row) for row in self._rows()]
        table = f"<tr>{''.join(f'<th>{title}</th>' for title in titles)}</tr>" + "".join(f"<tr>{r}</tr>" for r in rows)
        ending = f"<p>{self._formula()}</p>" if self.law else ""
        return f"<h4>{html.escape(self._head)}</h4><table>{table}</table>{ending}<p>{html.escape(self.sentence)}</p>"


def learning_curve(
    model: str | keras.Model | Run,
    data: Data | None = None,
    sizes: Iterable[float] | None = None,
    *,
    seeds: int = 3,
    recipe: Recipe | None = None,
    directory: str | os.PathLike | None = None,
    **given,
) -> LearningCurve:
    """Trains on fewer and fewer of the training pictures, and reads off what more of them would bring.

    Every training follows one recipe, that of all pictures, and takes about as many steps: an epoch of a small part
    goes round its pictures until it is as long as one of all, so dev is looked at equally often. As ever, it ends on
    the weights of the lowest loss on dev, where its error is measured too. Each seed draws its own pictures and initial
    weights; within a seed, smaller parts are parts of larger ones. From scratch, pictures are normalised as all of them
    would be. Where the recipe freezes a part of the network, its outputs are computed once for all trainings; otherwise
    each takes as long as one on all pictures.

    To the errors a power law is fitted (Hestness et al. 2017, https://arxiv.org/abs/1712.00409; Viering and Loog 2021,
    https://arxiv.org/abs/2103.10948). It speaks of more pictures of the same kind, and no farther than ten times as
    many.

    Args:
        model: As in `fine_tune`; a model that is handed over stays as it is. Or a Run, whose recipe and data are taken.
        data: From `zoo.load_data`, with a dev set.
        sizes: Numbers of training pictures, or shares of them in (0, 1]; by default five in equal ratios from a tenth,
            two a class at least, to all.
        seeds: Trainings a size.
        recipe: Choices to start from.
        directory: Folder for `learning_curve.csv` and `learning_curve.json`; by default nothing is written.
        **given: Fields of `Recipe`, such as epochs=20; `seed` is the first one.

    Raises:
        TypeError: If a field is unknown, or `data` is no Data.
        ValueError: If a size is out of range, there is no dev set, or `fine_tune` would refuse model, data or field.
        OSError: If the folder cannot be written.

    Example:
        print(zoo.learning_curve("mobilenet_v2", data))
        curve = zoo.learning_curve(run, sizes=(0.25, 0.5, 1.0))
        curve.gain(per_class=500)  # (0.011, 0.004, 0.019): 1.1 points
    """
    model, data, recipe = _taken(model, data, recipe)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ValueError(f"`seeds` must be a whole number of at least 1. Received: seeds={seeds!r}")
    recipe = preparing.resolved(model, data, recipe.with_fields(given))
    if not len(data.dev):
        raise ValueError(
            "The error is measured on a dev set, and this data has none. Load it with split=(0.7, 0.15, 0.15)."
        )
    numbers = _numbers(sizes, len(data.train), sum(count > 0 for count in data.train.counts.values()))
    if directory is not None:
        make_folder(directory)
    data = preparing.configured(data, recipe)
    print(f"{len(numbers)} sizes, {seeds} seeds: {len(numbers) * seeds} trainings of {recipe.epochs} epochs each.")
    rows, recipe = trainings(model, data, recipe, numbers, range(int(recipe.seed), int(recipe.seed) + seeds))
    curve = LearningCurve(pd.DataFrame(rows), recipe, len(data.train), len(data.class_names), len(data.dev))
    if directory is not None:
        print(f"Written to {shown(curve.save(directory))}.")
    return curve


def _taken(model, data, recipe) -> tuple[str | keras.Model, Data, Recipe]:
    """Model, data and recipe, from a run where one was given."""
    if recipe is not None and not isinstance(recipe, Recipe):
        raise TypeError(f"`recipe` must be a zoo.Recipe, such as run.recipe. Received: {type(recipe).__name__}")
    if isinstance(model, Run):
        run = model
        if run.recipe.head == "as given":
            raise ValueError(
                f"This run trained a model that was handed over, '{run.recipe.model}', and its weights at the start "
                "are not kept. Hand over the model: learning_curve(model, run.data, recipe=run.recipe)."
            )
        model, data, recipe = run.recipe.model, data if data is not None else run.data, recipe or run.recipe
    if not isinstance(data, Data):
        raise TypeError(f"`data` must come from zoo.load_data. Received: {type(data).__name__}")
    return model, data, recipe or Recipe()


def _numbers(sizes: Iterable[float] | None, most: int, classes: int) -> list[int]:
    """The sizes as rising numbers of pictures."""
    if sizes is None:
        first = min(max(SMALLEST * most, 2 * classes), most)
        return sorted(set(np.rint(np.geomspace(first, most, STEPS)).astype(int).tolist()))
    wishes = list(sizes) if isinstance(sizes, Iterable) and not isinstance(sizes, str) else []
    if not wishes:
        raise ValueError(
            f"`sizes` must be numbers of pictures, or shares in (0, 1], such as (0.25, 0.5, 1.0). Received: {sizes!r}"
        )
    found = set()
    for wish in wishes:
        share = isinstance(wish, (float, np.floating)) and 0 < wish <= 1
        whole = isinstance(wish, (int, np.integer)) and not isinstance(wish, bool)
        pictures = round(wish * most) if share else wish
        if not (share or whole) or not classes <= pictures <= most:
            raise ValueError(
                f"Each of `sizes` must be a whole number of pictures from {classes}, one for each class, to {most}, "
                f"all training pictures, or a share of them in (0, 1]. Received: {wish!r}"
            )
        found.add(int(pictures))
    return sorted(found)


def _number(value) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _points(error: float) -> str:
    """A share as percentage points, one figure behind the point."""
    return f"{100 * error:.1f}"
