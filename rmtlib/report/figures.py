"""What the artifacts' figures are drawn with: styles, a panel for each scale, lines over x, the legend, saving."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rmtlib.errors import RmtlibError
from rmtlib.report.escape import escape
from rmtlib.report.measurements import Results, Series
from rmtlib.runs.spec import SCALES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#222222"
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
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.labelcolor": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
DARK = {  # colours of a drawing on white -> on the book's dark ground
    INK: "#d5dbe1",
    GREY: "#a8b0b8",
    "#444444": "#c3cad1",
    "#e4e4e4": "#363c44",
    PAPER_GROUND: "#1d232a",
    "#ffffff": "#121212",  # of hollow markers: the ground itself
    "#0072b2": "#56a8ff",
    "#d55e00": "#ff8a3d",
    "#009e73": "#35c99a",
    "#cc79a7": "#e79ac6",
    "#e69f00": "#f5bd41",
    "#8a6d1d": "#cfae55",
    "#8b3a00": "#d98a55",
    "#b8a800": "#d8ca3a",
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
        """(series, line, fill of markers): published runs, dashed and hollow beside this machine's, then those."""
        yield (self.published, "--", "white") if self.here else (self.published, "-", None)
        yield self.here, "-", None

    @property
    def told(self) -> Iterator[tuple[str, dict[str, Series]]]:
        """(whose runs, series) as a description has them, without what is empty."""
        for whose, group in (
            ("runs on this machine", self.here),
            ("published runs" if self.here else "runs", self.published),
        ):
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
    """A panel for each scale that has any records, largest first."""
    here, published = results.series(metric, "here"), results.series(metric, "published")
    return [Panel(s, here.get(s, {}), published.get(s, {})) for s in reversed(SCALES) if s in here or s in published]


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


def legend_handles(
    labels: Mapping[str, str], styles: Mapping[str, Style], panels: Iterable[Panel], *, band: bool = True
) -> list[Any]:
    """A line for each curve (name -> label), then what solid, dashed and banded mean, if there is any of it."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for name, label in labels.items():
        style = style_of(styles, name)
        handles.append(Line2D([], [], color=style.colour, marker=style.marker, markersize=4, label=label))
    panels = list(panels)
    dot: dict[str, Any] = {"color": GREY, "marker": "o", "markersize": 4}
    if panels and band:
        handles.append(Patch(color=GREY, alpha=0.25, label="± 1 std over seeds"))
    if any(panel.here for panel in panels):
        handles.append(Line2D([], [], label="runs here", **dot))
        if any(panel.here and panel.published for panel in panels):
            handles.append(Line2D([], [], linestyle="--", mfc="white", label="published runs", **dot))
    return handles


def grey_line(label: str, linestyle: Any) -> Any:
    """A legend entry for a line that marks something."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=GREY, linewidth=1, linestyle=linestyle, label=label)


def to_svg(figure: Figure) -> str:
    """The figure as SVG without a ground. Equal figures give equal text."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "rmtlib"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def darkened(svg: str) -> str:
    """The same drawing in colours for a dark ground."""
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: DARK.get(found.group(), found.group()), svg)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as PNG on white and as SVG; returns the two paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, svg = (stem.with_name(stem.name + ending) for ending in (".png", ".svg"))
    svg.write_text(to_svg(figure), encoding="utf-8")
    figure.set_layout_engine("none")  # as laid out for the SVG: to do so anew takes as long as to draw
    figure.savefig(png, dpi=200, facecolor="white")
    return [png, svg]


def themed_images(figure: Figure, stem: Path, address: str, alt: str) -> str:
    """Write the figure at `stem`, also for a dark ground; the markup of both, of which the book's theme shows one.

    Args:
        address: of the folder that it is written into, as the page sees it.
    """
    _, light = save(figure, stem)
    dark = light.with_name(stem.name + "-dark.svg")
    dark.write_text(darkened(light.read_text(encoding="utf-8")), encoding="utf-8")
    images = "".join(
        f'<img class="only-{theme}" src="{address}/{path.name}" alt="{escape(alt)}">'
        for theme, path in (("light", light), ("dark", dark))
    )
    return f'<div class="static">{images}</div>'  # the theme hides a caption that is a sibling of these images
