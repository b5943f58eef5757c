"""Figures to explore: the curves of the static figure as data, which book/assets/explore.js draws with plotly.

A page shows the static figure; its data and plotly.js are two files of the book that are loaded when a reader asks for
them. Means, deviations and intervals come from the aggregates that the static figure is drawn from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rmtlib.report.escape import escape
from rmtlib.report.figures import DARK, Style
from rmtlib.report.measurements import Aggregate, ByScale, Measurement, Results, Series
from rmtlib.report.tables import mean_text
from rmtlib.runs.spec import SCALES

SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
}
PLOTLY = "plotly.min.js"
MEAN, PRINTED = "mean", "printed"
"""What a line is drawn of, if not of one seed."""


class Chart(NamedTuple):
    """A pair of axes. `log`: whether x starts logarithmic; `levels`: what is marked across, e.g. {"chance": 0.1}."""

    x: str
    y: str
    log: bool = False
    digits: int = 3
    levels: Mapping[str, float] = {}


class Curve(NamedTuple):
    """A row's line on a chart: at each x the runs of one scale, or what a paper or its authors print.

    Attributes:
        source: the scale, or whose numbers are printed ("the paper", "the authors").
        trained: the largest x of training; None if it is not marked.
    """

    chart: str
    name: str
    style: Style
    source: str
    points: tuple[tuple[float, Aggregate], ...]
    trained: float | None = None


@dataclass(frozen=True)
class Explorable:
    """What of an artifact can be explored.

    Attributes:
        charts: axes by their name; a reader sees one at a time.
        lines: what a chart's lines are: "task", "model".
    """

    charts: Mapping[str, Chart]
    curves: Callable[[Results], Iterable[Curve]]
    lines: str = "model"


def curves_of(by_scale: ByScale, named: Callable[[Series], tuple[str, str, Style]]) -> Iterator[Curve]:
    """A curve of each series over its x; `named` gives its chart, name and style."""
    for scale, rows in by_scale.items():
        for series in rows.values():
            points = tuple((point.x, point) for point in series.points)
            yield Curve(*named(series), scale, points, series.at_trained_x.x)


def printed_curves(
    printed: Iterable[Measurement], source: str, named: Callable[[str], tuple[str, str, Style]]
) -> Iterator[Curve]:
    """A curve of each row whose printed values have an x, over x; `named` gives a row's chart, name and style."""
    rows: dict[str, list[Measurement]] = {}
    for m in printed:
        if m.x is not None:
            rows.setdefault(m.row, []).append(m)
    for row, values in rows.items():
        yield Curve(*named(row), source, tuple((m.x or 0, Aggregate((m,))) for m in values), values[0].x_trained)


def as_data(explorable: Explorable, results: Results) -> dict[str, Any]:
    """What explore.js draws: {"lines", "charts", "start", "sources", "shown", "seeds", "traces"}."""
    curves = list(explorable.curves(results))
    traces = [trace for curve in curves for trace in _traces(curve, explorable.charts[curve.chart])]
    present = {curve.source for curve in curves}
    sources = [scale for scale in SCALES if scale in present]
    printed = [source for source in dict.fromkeys(curve.source for curve in curves) if source not in SCALES]
    seeds = sorted({trace["seed"] for trace in traces if isinstance(trace["seed"], int)})
    charts = {
        name: {"x": chart.x, "y": chart.y, "log": chart.log, "levels": dict(chart.levels)}
        for name, chart in explorable.charts.items()
        if any(curve.chart == name for curve in curves)
    }
    return {
        "lines": explorable.lines,
        "charts": charts,
        "start": next((curve.chart for curve in curves if curve.source in sources[-1:]), next(iter(charts), None)),
        "sources": [*({"name": s, "text": f"{s} scale"} for s in sources), *({"name": s, "text": s} for s in printed)],
        "shown": [*sources[-1:], *printed],
        "seeds": seeds,
        "traces": traces,
    }


def _traces(curve: Curve, chart: Chart) -> Iterator[dict[str, Any]]:
    """The line of means, then one of each seed's run."""
    printed = curve.source not in SCALES
    seeds: dict[int, list[tuple[float, Measurement]]] = {}
    for x, point in curve.points:
        for run in point.runs:
            if run.seed is not None:
                seeds.setdefault(run.seed, []).append((x, run))
    colour = curve.style.colour.lower()
    shared = {
        "chart": curve.chart, "name": curve.name, "source": curve.source, "trained": curve.trained,
        "colours": [colour, DARK.get(colour, colour)], "symbol": SYMBOLS[curve.style.marker],
    }  # fmt: skip
    yield {
        **shared,
        "seed": PRINTED if printed else MEAN,
        "x": [x for x, _ in curve.points],
        "y": [point.mean for _, point in curve.points],
        "std": [point.std for _, point in curve.points],
        "hover": [_of_mean(curve, chart, x, point) for x, point in curve.points],
    }
    for seed, runs in sorted(seeds.items()):
        yield {
            **shared,
            "seed": seed,
            "x": [x for x, _ in runs],
            "y": [run.value for _, run in runs],
            "hover": [_of_run(curve, chart, x, run) for x, run in runs],
        }


def _of_mean(curve: Curve, chart: Chart, x: float, point: Aggregate) -> str:
    if curve.source not in SCALES:
        single = ", ".join(f"{value:g}" for value in point.values) if len(point.runs) > 1 else ""
        lines = [f"{curve.name}, {curve.source}", f"{chart.x}: {_count(x)}"] + [f"mean of {single}"] * bool(single)
        return _hover(f"{point.mean:.{chart.digits}f}", *lines)
    seeds = ", ".join(str(run.seed) for run in point.runs)
    of = f"mean of seeds {seeds}" if len(point.runs) > 1 else f"one run, seed {seeds}"
    lines = [f"{curve.name}, {curve.source} scale", of, f"{chart.x}: {_count(x)}{_n(point.runs[0])}"]
    return _hover(mean_text(point, chart.digits), *lines)


def _of_run(curve: Curve, chart: Chart, x: float, run: Measurement) -> str:
    low, high = (None if end is None else f"{end:.{chart.digits}f}" for end in (run.low, run.high))
    interval = f" (95 %: {low} to {high})" if low else ""
    lines = [f"{curve.name}, {curve.source} scale, seed {run.seed}", f"{chart.x}: {_count(x)}{_n(run)}"]
    return _hover(f"{run.value:.{chart.digits}f}{interval}", *lines)


def _n(run: Measurement) -> str:
    return f"; n = {run.n:,}" if run.n else ""


def _count(x: float) -> str:
    return f"{x:,.10g}"


def _hover(number: str, *lines: str) -> str:
    """Plotly reads a few tags in a text: what stands in ours is escaped."""
    return "<br>".join([f"<b>{escape(number)}</b>", *map(escape, lines)])


def write_data(explorable: Explorable, results: Results, folder: Path, name: str) -> bool:
    """Write the curves as `name`.js into `folder`, a script, as no page of a file system can fetch; False of none."""
    data = as_data(explorable, results)
    if data["traces"]:
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
        (folder / f"{name}.js").write_text(f'(window.bookCurves ||= {{}})["{name}"] = {text};\n', encoding="utf-8")
    return bool(data["traces"])


def write_plotly(folder: Path) -> None:
    """Put the plotly.js of the installed package into the book, for all its figures."""
    from plotly.offline import get_plotlyjs

    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLOTLY).write_text(get_plotlyjs(), encoding="utf-8")
