"""Numbers for hand-written text: every row's main number at every scale, by the name that the book's role asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from rmtlib.report.measurements import Series, latest, slug
from rmtlib.report.tables import mean_text, plural
from rmtlib.report.view import View
from rmtlib.runs.artifact import Artifact


class Value(TypedDict):
    """A number as text, what it is for a reader who points at it, and its record's page below the book's root."""

    text: str
    hint: str
    page: str


def values(views: Iterable[View]) -> dict[str, Value]:
    """ "<artifact>/<scale>/<row>" -> its value; with "/<metric>" another metric, with "@<x>" at another x.

    Without x the value is at the largest x of training. Of a run that is not there yet the text is "not run", so that a
    page is written once; a name that cannot be is missing here, and the book does not build.
    """
    found: dict[str, Value] = {}
    for view in views:
        for row in view.artifact.rows:
            for scale in view.artifact.scales:
                found[f"{view.artifact.name}/{scale}/{row.name}"] = {"text": "not run", "hint": "", "page": ""}
        metrics = {m.metric for record in latest(view.results.records) for m in view.results.measure(record)}
        for metric in (None, *sorted(metrics)):
            for scale, rows in view.results.series(metric).items():
                for row_name, series in rows.items():
                    key = f"{view.artifact.name}/{scale}/{row_name}" + (f"/{metric}" if metric else "")
                    found |= _of_series(key, series, view.artifact)
    return found


def _of_series(key: str, series: Series, artifact: Artifact) -> dict[str, Value]:
    page = f"records/{slug(series.records[0])}.html"
    found: dict[str, Value] = {}
    for point in series.points:
        runs = plural(len(point.runs), "run")
        of = f"{artifact.name}, {series.row}, {series.scale} scale, {runs}: {series.metric}"
        at = f" at {point.x:g}" if len(series.points) > 1 else ""
        value = Value(
            text=mean_text(point, 3 if "bits per" in series.metric else 2).partition(" [")[0],
            hint=f"{of}{at}",
            page=page,
        )
        found[f"{key}@{point.x:g}"] = value
        if point is series.at_trained_x:
            found[key] = value
    return found
