"""Figures to explore: their curves are the measurements that the static figure is drawn from, and only those."""

import json

import fakes
import pytest
from bs4 import BeautifulSoup

from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.experiments.view import view_of
from rmtlib.report import pages
from rmtlib.report.figures import BLUE, DARK
from rmtlib.report.interactive import Chart, Curve, Explorable, as_data, write_data, write_plotly
from rmtlib.report.measurements import Aggregate, Measurement
from rmtlib.runs.records import find_records

EXPLORED = [name for name in ARTIFACTS if view_of(name).report.explore]


@pytest.fixture(scope="module")
def view():
    return view_of("figure-5", published=[*fakes.seeds("qa1", (0.02, 0.1, 0.18)), *fakes.seeds("qa2", (0.3,))])


def traces(data, **wanted):
    return [trace for trace in data["traces"] if all(trace[key] == value for key, value in wanted.items())]


def test_the_artifacts_with_curves_can_be_explored():
    assert {"figure-5", "memory-capacity", "algorithmic", "lm-segments", "babilong"} <= {*EXPLORED}


def test_means_and_runs_are_those_of_the_series(view):
    data, series = as_data(view.report.explore, view.results), view.results.series()["small"]["qa1"]
    (mean,) = traces(data, name="qa1", seed="mean")
    assert mean["x"] == [point.x for point in series.points] and mean["y"] == [point.mean for point in series.points]
    assert mean["std"] == [point.std for point in series.points] and mean["trained"] == series.at_trained_x.x
    for seed in range(3):
        (run,) = traces(data, name="qa1", seed=seed)
        assert run["y"] == [point.runs[seed].value for point in series.points]
    assert [trace["seed"] for trace in traces(data, name="qa2", source="small")] == ["mean", 0]
    assert data["seeds"] == [0, 1, 2] and data["shown"] == ["small", "the paper"] and data["lines"] == "task"


def test_hovering_says_value_row_scale_seed_and_n(view):
    data = as_data(view.report.explore, view.results)
    run, point = traces(data, name="qa1", seed=1)[0], view.results.series()["small"]["qa1"].points[2]
    value = point.runs[1]
    said = run["hover"][2]
    assert said.startswith(f"<b>{value.value:.3f} (95 %: {value.low:.3f} to {value.high:.3f})</b>")
    assert "qa1, small scale, seed 1" in said and "context length in tokens: 512; n = 500" in said
    mean = traces(data, name="qa1", seed="mean")[0]["hover"][2]
    assert f"{point.mean:.3f} ± {point.std:.3f}" in mean and "mean of seeds 0, 1, 2" in mean
    paper = traces(data, name="qa1", seed="printed")[0]
    assert "qa1, the paper" in paper["hover"][0] and "n =" not in paper["hover"][0]


def test_text_that_plotly_would_obey_is_escaped():
    hostile = '<a href="https://x.y">b</a>'
    point = Aggregate((Measurement("a", hostile, "m", 0.5, scale="small", seed=0),))
    found = Explorable({"c": Chart("x", "y")}, lambda _: [Curve("c", hostile, BLUE, "small", ((1.0, point),))])
    for trace in as_data(found, None)["traces"]:
        assert "<a" not in trace["hover"][0] and "&lt;a" in trace["hover"][0]


@pytest.mark.parametrize("name", EXPLORED)
def test_every_published_curve_is_drawn_on_a_chart_with_colours_for_both_grounds(name, tmp_path):
    view = view_of(name, published=find_records(name, where=("results",)))
    data = as_data(view.report.explore, view.results)
    known = {source["name"] for source in data["sources"]}
    assert data["traces"] and data["start"] in data["charts"] and {*data["shown"]} <= known
    for trace in data["traces"]:
        assert trace["chart"] in data["charts"] and trace["source"] in known
        assert len(trace["x"]) == len(trace["y"]) == len(trace["hover"]) > 0
        light, dark = trace["colours"]
        assert dark == DARK.get(light, light)
    drawn = {run for trace in data["traces"] for run in [(trace["source"], trace["seed"])]}
    for scale, rows in view.results.series().items():
        for series in rows.values():
            assert {(scale, run.seed) for point in series.points for run in point.runs} <= drawn


def test_the_page_offers_what_was_written_beside_the_static_figure(view, tmp_path):
    figure = BeautifulSoup(pages.figure_fragment(view, tmp_path), "html.parser").figure
    assert len(figure.select("img[alt]")) == 2 and figure["data-explore"] == "figure-5"
    script = (tmp_path / "figure-5.js").read_text()
    head, _, rest = script.partition(" = ")
    assert head == '(window.bookCurves ||= {})["figure-5"]'
    assert json.loads(rest.rstrip(";\n")) == json.loads(json.dumps(as_data(view.report.explore, view.results)))
    nothing = Explorable({"c": Chart("x", "y")}, lambda _: [])
    assert not write_data(nothing, view.results, tmp_path, "nothing") and not (tmp_path / "nothing.js").exists()


def test_plotly_is_one_file_of_the_book(tmp_path):
    pytest.importorskip("plotly")
    write_plotly(tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.name == "plotly.min.js" and "plotly.js v" in file.read_text()[:200]
