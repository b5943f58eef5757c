"""Measurements, claims, tables and figures over records of known content."""

import csv
import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import fakes
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from rmtlib.errors import RmtlibError
from rmtlib.evaluation.decisions import RUNS_NEEDED, Contrast
from rmtlib.experiments.babilong.artifact import Figure5
from rmtlib.experiments.babilong.claims import CLAIMS
from rmtlib.experiments.babilong.figure import PAPER_TRAIN_TOKENS, STYLES
from rmtlib.experiments.babilong.report import accuracy_table, comparison_table, measure, printed
from rmtlib.experiments.babilong.rules import arms, slope
from rmtlib.experiments.view import view_of
from rmtlib.report import figures, tables
from rmtlib.report.claims import Declaration, in_words, judge
from rmtlib.report.figures import BLUE
from rmtlib.report.measurements import Results, latest, parse_count, short_count, slug, to_csv
from rmtlib.report.scoreboard import in_a_sentence, scoreboard, tally
from rmtlib.report.verdicts import as_data, rules_table

ROWS = Figure5.rows


def results(live=(), published=()):
    return Results(ROWS, measure, live, published, printed())


def qa1(records):
    return results(records).series()["small"]["qa1"]


def verdicts(records):
    return {verdict.claim.name: verdict for verdict in view_of("figure-5", records).verdicts()}


def draw(live=(), published=()):
    return view_of("figure-5", live, published).draw()


def paper_points(row):
    return [(m.tokens, m.value) for m in printed() if m.row == row.name]


def csv_lines(live=(), published=()):
    return list(csv.DictReader(io.StringIO(to_csv(results(live, published).long_form()))))


def test_artifacts_are_listed_without_what_draws_them():
    code = (
        "import sys; from rmtlib.experiments.registry import all_artifacts; [a.rows for a in all_artifacts().values()];"
        "assert not {'matplotlib', 'torch', 'rmtlib.report.report'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Measurements


def test_counts_are_written_as_context_lengths_are():
    assert [short_count(n) for n in (64, 128, 1024, 16384, 131072, 2**20, 10_000_384, 2000)] == [
        *("64", "128", "1k", "16k", "128k", "1M", "10M", "2k")
    ]
    for text in ("1k", "64k", "512k", "1M", "10M"):
        assert short_count(parse_count(text)) == text
    assert parse_count("0k") == 0


def test_a_series_joins_its_seeds_length_by_length():
    records = [fakes.record(seed=seed, accuracy=lambda s, a=a: a) for seed, a in enumerate((0.5, 0.7, 0.9))]
    series = qa1(records)
    assert [point.x for point in series.points] == [128 * s for s in fakes.SEGMENTS]
    assert series.x_trained == 512 and series.at_trained_x.x == 512
    for point in series.points:
        assert point.mean == pytest.approx(0.7)
        assert point.std == pytest.approx(0.2)  # sample standard deviation
        assert point.interval[0] < 0.7 < point.interval[1]


def test_one_run_has_a_binomial_interval_and_no_deviation():
    point = qa1([fakes.record(accuracy=lambda s: 0.5, n=100)]).points[0]
    assert point.std is None
    low, high = point.interval
    assert low == pytest.approx(0.4038, abs=1e-3) and high == pytest.approx(0.5962, abs=1e-3)  # Wilson, 50 of 100


def test_runs_that_miss_a_length_do_not_count_there():
    records = [fakes.record(seed=0), fakes.record(seed=1, segments=(1, 2, 4))]
    points = qa1(records).points
    assert [len(point.runs) for point in points] == [2, 2, 2, 1, 1, 1, 1]


def test_of_two_records_of_the_same_row_and_seed_the_later_counts():
    old = fakes.record(accuracy=lambda s: 0.1, finished="2025-01-01T00:00:00+00:00", params={"old": True})
    new = fakes.record(accuracy=lambda s: 0.8)
    assert latest([new, old]) == latest([old, new]) == [new]
    assert qa1([old, new]).points[0].mean == pytest.approx(0.8)


def test_a_paper_scale_row_of_this_machine_is_not_mixed_with_a_published_one_in_another_precision():
    def record(row, seed, precision):
        made = fakes.record(row=row, seed=seed, scale="paper", params={"precision": precision})
        return made | {"precision": precision}

    here = record("qa1", 0, "float32")
    others = [("qa1", 0, "bf16"), ("qa1", 1, "bf16"), ("qa2", 0, "bf16"), ("qa1", 2, "float32")]
    published = [record(*other) for other in others]
    assert results([here], published).records == [here, *published[2:]]
    assert results([], published).records == published


# Claims


def test_the_papers_own_values_have_the_declines_that_the_claims_describe():
    values = {row.name: dict(paper_points(row)) for row in ROWS if row.paper}
    assert values["qa1"][PAPER_TRAIN_TOKENS] == 1.0 and values["qa3"][PAPER_TRAIN_TOKENS] == 0.66
    for column in values.values():
        assert column[max(column)] < column[PAPER_TRAIN_TOKENS] - 0.3
        assert all(a >= b for a, b in pairwise(column[length] for length in sorted(column)))
    assert all(values["qa1"][n] >= values[task][n] for task in values for n in values[task])


def test_all_is_described_and_in_the_claimed_direction_on_records_shaped_like_the_papers_figure():
    found = verdicts(fakes.as_in_the_paper())
    assert {v.outcome for v in found.values() if not v.claim.primary} == {"described"}
    for name in ("declines", "qa1-highest", "facts-steepen"):
        assert all(effect.effect < 0 for effect in found[name].effects), name
    assert len(found["declines"].effects) == 5 and len(found["qa1-highest"].effects) == 4


def test_qa1_holds_beyond_its_training_length_or_fails():
    assert verdicts(fakes.seeds("qa1", (0.01, 0.02, 0.03, 0.02)))["holds-beyond"].outcome == "holds"
    assert verdicts(fakes.seeds("qa1", (0.15, 0.16, 0.17, 0.16)))["holds-beyond"].outcome == "fails"
    shut = verdicts(fakes.seeds("qa1", (0.01, 0.02, 0.03, 0.02), start=0.5))["holds-beyond"]
    assert shut.outcome == "undecided" and shut.why == "it did not learn the task: qa1: trained is 0.5, not above 0.9"


def test_tasks_with_longer_segments_are_compared_at_the_same_multiple_of_training():
    """qa3 with segments four times as long: at equal tokens it would look better than qa1 far beyond training."""
    qa3 = fakes.seeds("qa3", (0.15, 0.15, 0.15), start=0.9)
    for record in qa3:
        for entry in record["metrics"]["exact_match"]:
            entry["tokens"] *= 4
    records = [*fakes.seeds("qa1", (0.12, 0.12, 0.12), start=0.99), *qa3]
    assert results(records).series()["small"]["qa3"].x_trained == 2048
    assert verdicts(records)["qa1-highest"].effects[0].effect < 0
    table = accuracy_table(results(records), "small")
    assert len(table.rows) == len(fakes.SEGMENTS) and "512 tokens a segment" in table.header[2]
    ax = draw(records).axes[0]
    assert [line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1] == [512, 2048]
    assert {text.get_text() for text in ax.texts} == {"qa1", "qa3"}  # whose training length each line is


def test_slopes_are_per_doubling():
    assert slope({4: 0.9, 8: 0.8, 16: 0.7, 32: 0.6}) == pytest.approx(-0.1)


@pytest.mark.parametrize("count", range(1, RUNS_NEEDED))
def test_fewer_runs_than_needed_decide_nothing(count):
    records = [r for task in ("qa1", "qa2", "qa3") for r in fakes.seeds(task, (0.1, 0.2, 0.3)[:count])]
    assert {v.outcome for v in verdicts(records).values()} == {"not enough runs"}


def test_nothing_is_claimed_at_smoke_scale_and_scales_are_not_mixed():
    assert verdicts([fakes.record(scale="smoke", seed=i) for i in range(3)]) == {}
    records = [fakes.record(seed=0), fakes.record(seed=1), fakes.record(seed=0, scale="gpu")]
    assert {v.outcome for v in verdicts(records).values()} <= {"not enough runs", "not run"}


def test_table_shows_spread_intervals_and_a_link_to_every_record():
    records = [*fakes.seeds("qa1", (0.02, 0.10, 0.18)), *fakes.seeds("qa2", (0.3,))]
    table = accuracy_table(results(records), "small")
    html = table.to_html("../records")
    for record in records:
        assert f'href="../records/{slug(record)}.html"' in html
    assert table.header[1:] == ("qa1, 3 runs, 128 tokens a segment", "qa2, 1 run, 128 tokens a segment")
    by_length = {row[0]: row[1:] for row in table.rows}
    qa1, qa2 = by_length["64"]
    values = [r["metrics"]["exact_match"][-1]["correct"] / 500 for r in records[:3]]
    mean = sum(values) / 3
    std = (sum((v - mean) ** 2 for v in values) / 2) ** 0.5
    assert qa1[0] == f"{mean:.2f} ± {std:.2f}"
    assert qa2[0].startswith("0.10 [0.0") and "±" not in qa2[0]
    assert "4 (longest trained)" in by_length


def test_comparison_aligns_by_multiples_of_the_training_length():
    table = comparison_table(results(fakes.seeds("qa1", (0.1, 0.1, 0.1))))
    cells = {(row[0], row[1]): dict(zip(table.header[2:], row[2:], strict=True)) for row in table.rows}
    assert cells["qa1", "paper"]["1×"] == "1.00" and cells["qa1", "paper"]["4×"] == "0.96"  # at 16k and 64k
    assert cells["qa1", "ours, small"]["4×"].startswith("0.77")  # 0.97 less two doublings
    assert cells["qa1", "ours, small"]["32×"] == ""
    assert cells["qa3", "paper"]["2×"] == "0.55" and cells["qa3", "ours"]["1×"] == "not run"


def test_settings_are_readable_side_by_side():
    small = {"train": {"stages": [[1, 300, 0.003], [2, 600, 0.001]], "batch_size": 32}, "test": {"1": 500, "64": 250}}
    table = tables.settings_table("", {"small": small, "paper": {"train": {"batch_size": 64}}})
    assert {row[0]: row[1:] for row in table.rows} == {
        "train.stages": (("1 / 300 / 0.003", "2 / 600 / 0.001"), ""),
        "train.batch_size": ("32", "64"),
        "test": ("1: 500, 64: 250", ""),
    }


@pytest.mark.parametrize(
    ("caption", "title"),
    [
        ("Pairs stored (below 0: worse than guessing).", "Pairs stored (below 0: worse than guessing)"),
        ("Pairs stored: of 16. Three seeds.", "Pairs stored"),
        ("Pairs stored. Of 1.5 kinds: two.", "Pairs stored"),
    ],
)
def test_a_table_is_titled_by_the_first_clause_of_its_caption(caption, title):
    assert tables.Table(caption, ("a",), ()).title == title


def test_markup_in_records_is_escaped():
    table = tables.Table("<b>", ("a",), (("<script>",),))
    assert "<script>" not in table.to_html() and "&lt;b&gt;" in table.to_html()


def test_rows_that_share_their_first_cell_are_one_group():
    html = tables.Table("", ("a", "b"), (("x", "1"), ("x", "2"), ("y", "3")), merged=True).to_html()
    assert html.count('rowspan="2">x</th>') == 1 and html.count('rowspan="1">y</th>') == 1


def test_csv_has_every_run_and_every_published_value():
    live, published = fakes.seeds("qa1", (0.1, 0.2)), fakes.seeds("qa2", (0.3,))
    lines = [line for line in csv_lines(live, [*published, live[0]]) if line["metric"] == "exact match"]
    here = [line for line in lines if line["source"] == "here"]
    assert len(here) == 2 * len(fakes.SEGMENTS)
    published_lines = [line for line in lines if line["source"] == "published"]
    assert len(published_lines) == len(fakes.SEGMENTS)  # live[0] only once
    assert len([line for line in lines if line["source"] == "paper"]) == sum(len(paper_points(r)) for r in ROWS)
    last = here[-1]
    entry = live[-1]["metrics"]["exact_match"][-1]
    assert float(last["value"]) == entry["correct"] / entry["n"] and int(last["n"]) == entry["n"]
    assert float(last["low"]) <= float(last["value"]) <= float(last["high"])
    assert (last["x"], last["x_trained"], last["segments"]) == ("8192", "512", "64")


def test_a_published_copy_of_a_live_run_counts_once():
    live, other = fakes.seeds("qa1", (0.1,)), fakes.seeds("qa2", (0.1,))
    found = results(live, [*live, *other])
    assert found.records == [*live, *other] and found.published == other
    assert list(found.series(source="published")["small"]) == ["qa2"]


# How claims are shown


def test_a_contrast_in_words():
    assert in_words(Contrast({"a": 1, "b": -0.09, "c": -0.91})) == "a - 0.09 b - 0.91 c"
    assert in_words(Contrast({"fall": 1}, limit=0.12)) == "fall - 0.12" and in_words(Contrast({"a": -1})) == "-a"


def test_tags_show_verdict_scale_effect_interval_and_n():
    view = view_of("figure-5", fakes.seeds("qa1", (0.01, 0.02, 0.03, 0.02)))
    verdict = view.verdicts()[0]
    (effect,) = verdict.effects
    assert effect.numbers == f"{effect.effect:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}], n = 4"
    badge = '<span class="verdict holds">holds</span>'
    fall = f"qa1 loses {effect.effect + effect.limit:.3f} ± {effect.half:.3f} of exact match from the training length"
    for shown in (view.claims(), scoreboard([view])):
        assert badge in shown and fall in shown
    assert f"{effect.contrast} = {effect.numbers}" in view.claims()
    assert "1 claim with a rule that decides them, 1 holds (1 with a caution); 4 runs" in in_a_sentence([view])
    row = tally([view]).partition('<th scope="row">BABILong</th>')[2].partition("</tr>")[0]
    assert [int(count) for count in re.findall(r"<b>(\d+)</b>", row)] == [1, 0, 0, 2, 2]


def test_a_changed_rule_has_two_verdicts():
    (claim, *_), records = CLAIMS, fakes.seeds("qa1", (0.01, 0.02, 0.03, 0.02))
    strict = replace(claim.test, contrasts=(Contrast({"qa1: fall": 1}, limit=0.0),))
    entries = (Declaration("2025-01-01T00:00:00+00:00", "aaaaaaa", strict),)
    entries += (Declaration("2026-06-01T00:00:00+00:00", "bbbbbbb", claim.test),)
    found = judge([replace(claim, declared=entries)], records, arms)
    assert [(v.commit, v.outcome) for v in found] == [("bbbbbbb", "holds"), ("aaaaaaa", "fails")]
    assert [v.older for v in found] == [True, False]


def test_listed_claims_have_their_numbers_and_what_missing_runs_cost(tmp_path):
    view = view_of("figure-5", fakes.seeds("qa1", (0.01, 0.02, 0.03, 0.02)))
    listed = {c["claim"]: c for c in as_data(view, tmp_path)}
    beyond = listed["holds-beyond"]
    assert beyond["verdict"] == "holds" and beyond["cost"] is None and beyond["p"] < 0.05
    assert beyond["power"]["n"] == 4 and beyond["power"]["paper"] > 0.8 > 0.06 > beyond["power"]["boundary"]
    assert beyond["seen"]["paper"] > 0.95 and beyond["seen"]["needed"] == 4
    assert listed["facts-steepen"]["verdict"] == "not enough runs" and "for 6 runs" in listed["facts-steepen"]["cost"]
    assert listed["facts-steepen"]["power"] is None
    assert listed["declines"]["verdict"] == "described" and "for 12 runs" in listed["declines"]["cost"]
    assert "<b>Here:</b> 2 of 4 runs of qa1." in view_of("figure-5", fakes.seeds("qa1", (0.01, 0.02))).claims()
    nothing = as_data(view_of("figure-5"), tmp_path)
    assert {c["verdict"] for c in nothing} == {"not run"} and all(c["cost"] for c in nothing)
    assert {c["seen"] for c in nothing} == {None}
    apart = view_of("figure-5", fakes.seeds("qa1", (0.01, 0.08, 0.02, 0.06)))
    (seen,) = [c["seen"] for c in as_data(apart, tmp_path) if c["claim"] == "holds-beyond"]
    assert seen["paper"] < 0.5 and 5 <= seen["needed"] <= 25
    assert f"({seen['needed']} would do)" in apart.claims()
    (row,) = rules_table([apart]).rows
    assert row[-2] == (f"{seen['paper']:.2f}", f"{seen['needed']} seeds, small")


# Figures


@pytest.fixture(scope="module")
def drawn():
    live = fakes.seeds("qa1", (0.02, 0.10, 0.18), recency_accuracy=0.4)
    published = [*fakes.as_in_the_paper()[3:], fakes.record(scale="gpu", segments=(1, 4, 32), train_segments=4)]
    return live, published, draw(live, published)


def test_figure_has_a_panel_for_each_scale_and_one_for_the_paper(drawn):
    _, _, figure = drawn
    titles = [ax.get_title() for ax in figure.axes]
    assert len(titles) == 3
    assert titles[0].startswith("gpu scale") and titles[1].startswith("small scale") and "paper" in titles[2]


def test_figure_marks_the_training_length_and_shows_every_run(drawn):
    live, published, figure = drawn
    small = figure.axes[1]
    upright = [line.get_xdata()[0] for line in small.lines if len(set(line.get_xdata())) == 1]
    assert upright == [512]
    points = sum(len(collection.get_offsets()) for collection in small.collections if len(collection.get_offsets()))
    runs = len(live) + sum(record["scale"] == "small" for record in published)
    assert points >= runs * len(fakes.SEGMENTS)
    assert any(
        list(line.get_ydata()) == pytest.approx([0.4, 0.4]) for line in small.lines
    )  # naming the most recent place


def test_live_runs_are_solid_and_published_ones_dashed(drawn):
    _, _, figure = drawn
    styles = {line.get_linestyle() for line in figure.axes[1].lines if len(line.get_xdata()) == len(fakes.SEGMENTS)}
    assert styles == {"-", "--"}
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"qa1", "qa2", "runs here", "published runs", "training length"} <= set(labels)


def test_bands_stay_between_0_and_1():
    records = [fakes.record(seed=i, accuracy=lambda s, a=a: a) for i, a in enumerate((0.0, 1.0, 1.0))]
    ax = draw(records).axes[0]
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() >= 0 and band.max() <= 1


def test_description_is_made_from_the_data(drawn):
    live, published, _ = drawn
    text = view_of("figure-5", live, published).alt()
    assert "qa1 (3 runs) 0.97 at 128" in text and "gpu scale" in text and "0.66 at 10M" in text
    assert view_of("figure-5").alt().count("Panel") == 1


def test_figure_files_are_written_and_equal_for_equal_data(drawn, tmp_path):
    live, published, figure = drawn
    png, svg = figures.save(figure, tmp_path / "a" / "figure-5")
    with Image.open(png) as image:
        assert image.width > 1500 and image.info["dpi"][0] == pytest.approx(200, abs=1)
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    _, again = figures.save(draw(live, published), tmp_path / "b")
    assert again.read_bytes() == svg.read_bytes()


def test_the_books_figures_have_no_ground_and_a_drawing_for_each_theme(drawn, tmp_path):
    shown = figures.themed_images(drawn[2], tmp_path / "figures" / "figure-5", "../figures", "a <b>")
    assert [img["class"] for img in BeautifulSoup(shown, "html.parser").select('img[alt="a <b>"]')] == [
        ["only-light"], ["only-dark"],
    ]  # fmt: skip
    svg, dark = tmp_path / "figures" / "figure-5.svg", tmp_path / "figures" / "figure-5-dark.svg"
    colours = [set(re.findall(r"#[0-9a-f]{6}\b", path.read_text())) for path in (svg, dark)]
    assert figures.INK in colours[0] and not colours[1] & {figures.INK, figures.GREY, "#ffffff", BLUE.colour.lower()}
    assert "fill: #ffffff" not in svg.read_text().partition('id="axes_1"')[0], "a figure has no ground of its own"


def test_colours_and_markers_differ_between_tasks():
    styles = [style for name, style in STYLES.items() if "-" not in name]  # what stands in has its task's colour
    assert len({style.colour for style in styles}) == len({style.marker for style in styles}) == len(styles) == 5


def test_a_curve_without_a_style_is_an_error():
    with pytest.raises(RmtlibError, match="no plot style for 'qa9': add it to its report's styles, which has qa1, qa2"):
        draw(fakes.seeds("qa9", (0.1,)))


def test_csv_panel_and_description_say_which_stories_were_simulated():
    real = fakes.record("qa2") | {"data": [{"name": "babi-qa2-train", "source": "local folder"}]}
    records = [fakes.record("qa1"), real]
    lines = csv_lines([], records)
    assert {(r["row"], r["data"]) for r in lines if r["record"]} == {("qa1", "simulator"), ("qa2", "bAbI files")}
    assert {r["data"] for r in lines if not r["record"]} == {""}
    said = "stories: bAbI's files; simulated: qa1"
    assert said in view_of("figure-5", [], records).alt()
    assert said in draw([], records).axes[0].get_title()
    assert draw([], [real]).axes[0].get_title().endswith("stories: bAbI's files")


def test_the_caption_says_what_to_see():
    view = view_of("figure-5", fakes.seeds("qa1", (0.1, 0.1, 0.1)))
    caption = view.report.caption(results(fakes.seeds("qa1", (0.1,))))
    assert caption == "qa1 (small scale): exact match 0.97 at the training length of 512 tokens, 0.57 at 8k"
