"""How its records are shown."""

from rmtlib.report.figures import BLUE, RED, draw_series, legend_handles, scale_panels, style_of
from rmtlib.report.measurements import Measurement
from rmtlib.report.report import Report
from rmtlib.report.tables import Table, mean_text, value_cell
from toy_artifact.claims import CLAIMS, arms

STYLES = {"slow": BLUE, "fast": RED}
PAPER = (Measurement("toy", "slow", "error", 0.4, "paper", x=8), Measurement("toy", "fast", "error", 0.1, "paper", x=8))


def measure(record):
    for step, error in record["metrics"]["errors"]:
        yield Measurement.of(record, "error", error, x=step, x_trained=8, n=1)


def figure(results):
    from matplotlib.figure import Figure

    drawn, panels = Figure(), scale_panels(results)
    for ax, panel in zip(drawn.subplots(1, max(len(panels), 1), squeeze=False)[0], panels, strict=False):
        for group, line, fill in panel.groups:
            for row, series in group.items():
                draw_series(ax, series, style_of(STYLES, row), line, fill)
        ax.set(title=f"{panel.scale} scale", xlabel="steps", ylabel="error")
    drawn.legend(handles=legend_handles({row: row for row in STYLES}, STYLES, panels))
    return drawn


def alt(results):
    ends = [f"{s.row} {s.last.mean:.3f}" for rows in results.series().values() for s in rows.values()]
    return f"Error over steps. {'; '.join(ends)}."


def by_scale(results, scale):
    rows = results.series().get(scale, {})
    return Table(f"Error, {scale} scale", ("row", "error"), tuple((r, value_cell(s.last, 3)) for r, s in rows.items()))


def compare(results):
    ours = results.series().get("small", {})
    rows = ((m.row, f"{m.value}", mean_text(ours[m.row].last) if m.row in ours else "not run") for m in results.printed)
    return Table("The paper beside ours", ("row", "paper", "ours"), tuple(rows))


def paper(results):
    return Table("The paper's values", ("row", "error"), tuple((m.row, f"{m.value}") for m in results.printed))


def report():
    return Report(
        measure=measure,
        styles=STYLES,
        figure=figure,
        alt=alt,
        caption=lambda results: "The fast row ends lower",
        by_scale=(by_scale,),
        compare=compare,
        paper=paper,
        claims=CLAIMS,
        arms=arms,
        printed=PAPER,
    )
