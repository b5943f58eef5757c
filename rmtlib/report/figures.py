"""What the artifacts' figures are drawn with: styles, a panel for each scale, lines over x, the legend, saving."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmtlib.errors import RmtlibError
from rmtlib.report.measurements import Results, Series
from rmtlib.runs.spec import SCALES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#555555"
PAPER_GROUND = "#f6f6f6"  # of panels that show the paper's values
RC: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "figure.facecolor": "white",
}


class Style(NamedTuple):
    """A colour of Okabe and Ito's palette (distinct under every common colour blindness), and a marker besides."""

    colour: str
    marker: str


BLUE, RED, GREEN = Style("#0072B2", "o"), Style("#D55E00", "s"), Style("#009E73", "^")
PINK, ORANGE, BLACK = Style("#CC79A7", "D"), Style("#E69F00", "v"), Style("#444444", "P")


def style_of(styles: Mapping[str, Style], name: str) -> Style:
    """The style of a curve.

    Raises:
        RmtlibError: it has none.
    """
    if name not in styles:
        raise RmtlibError(f"no plot style for {name!r}: add it to its report's styles, which has {', '.join(styles)}")
    return styles[name]


class Panel(NamedTuple):
    """All series of one scale, by row."""

    scale: str
    here: dict[str, Series]
    published: dict[str, Series]

    @property
    def groups(self) -> Iterator[tuple[dict[str, Series], str, str | None]]:
        """(series, line, fill of markers): published runs dashed and hollow, then this machine's solid and filled."""
        yield self.published, "--", "white"
        yield self.here, "-", None

    @property
    def told(self) -> Iterator[tuple[str, dict[str, Series]]]:
        """(whose runs, series) as a description has them, without what is empty."""
        for whose, group in (("runs on this machine", self.here), ("published runs", self.published)):
            if group:
                yield whose, group

    @property
    def rows(self) -> dict[str, Series]:
        """Every row once."""
        return self.published | self.here

    @property
    def series(self) -> list[Series]:
        return [*self.published.values(), *self.here.values()]


def scale_panels(results: Results, metric: str | None = None) -> list[Panel]:
    """A panel for each scale that has any records, smallest first."""
    here, published = results.series(metric, "here"), results.series(metric, "published")
    return [Panel(s, here.get(s, {}), published.get(s, {})) for s in SCALES if s in here or s in published]


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches; what is drawn inside the `with` looks like all others."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(RC):
        yield Figure(figsize=(width, height), layout="constrained")


def draw_legend(figure: Figure, handles: Sequence[Any], columns: int) -> None:
    """The legend below all panels."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def draw_series(
    ax: Axes,
    series: Series,
    style: Style,
    line: str,
    fill: str | None,
    bounds: tuple[float, float] = (float("-inf"), float("inf")),
) -> None:
    """The mean over seeds as a line, its standard deviation as a band (within `bounds`), every run as a point."""
    x = [point.x for point in series.points]
    band = [(point.mean - (point.std or 0.0), point.mean + (point.std or 0.0)) for point in series.points]
    ax.plot(x, [point.mean for point in series.points], line, color=style.colour, linewidth=1.8, zorder=3)
    low, high = [max(a, bounds[0]) for a, _ in band], [min(b, bounds[1]) for _, b in band]
    ax.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
    runs = [run for point in series.points for run in point.runs]
    look: dict[str, Any] = {"marker": style.marker, "facecolor": fill or style.colour, "edgecolor": style.colour}
    x = [run.x or 0 for run in runs]
    ax.scatter(x, [run.value for run in runs], s=14, linewidth=0.9, alpha=0.85, zorder=4, **look)


def mark_trained(ax: Axes, panel: Panel, x: Collection[float]) -> None:
    """An upright line at the largest x of training; if rows differ there, each with their names."""
    for trained in sorted(set(x)):
        ax.axvline(trained, color=GREY, linewidth=1, linestyle="-.", zorder=2)
        if len(set(x)) > 1:
            names = sorted({series.row for series in panel.series if series.x_trained == trained})
            ax.annotate("\n".join(names), (trained, 0.0), (2, 0), textcoords="offset points", fontsize=6.5, color=GREY)


def legend_handles(labels: Mapping[str, str], styles: Mapping[str, Style], panels: Iterable[Panel]) -> list[Any]:
    """A line for each curve (name -> label), then what solid, dashed and banded mean, if there is any of it."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for name, label in labels.items():
        style = style_of(styles, name)
        handles.append(Line2D([], [], color=style.colour, marker=style.marker, markersize=4, label=label))
    panels = list(panels)
    dot: dict[str, Any] = {"color": GREY, "marker": "o", "markersize": 4}
    if panels:
        handles.append(Patch(color=GREY, alpha=0.25, label="± 1 std over seeds"))
    if any(panel.here for panel in panels):
        handles.append(Line2D([], [], label="runs here", **dot))
    if any(panel.published for panel in panels):
        handles.append(Line2D([], [], linestyle="--", mfc="white", label="published runs", **dot))
    return handles


def grey_line(label: str, linestyle: Any) -> Any:
    """A legend entry for a line that marks something."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=GREY, linewidth=1, linestyle=linestyle, label=label)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as PNG and SVG; returns the two paths. Equal figures give equal files."""
    import matplotlib

    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(stem.name + ending) for ending in (".png", ".svg")]
    figure.savefig(paths[0], dpi=200)
    with matplotlib.rc_context({"svg.hashsalt": "rmtlib"}):
        figure.savefig(paths[1], metadata={"Date": None})
    return paths
