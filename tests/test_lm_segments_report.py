"""Figure, tables, claims and page of lm-segments, over records of known content."""

import csv
from math import log

import fakes
import pytest

from rmtlib.experiments.registry import get_artifact
from rmtlib.experiments.segments.figure import GAIN, OFF, STYLES, SWAPPED
from rmtlib.experiments.segments.rows import NGRAM
from rmtlib.experiments.segments.rules import arms, numbers
from rmtlib.experiments.view import view_of
from rmtlib.report import pages
from rmtlib.report.figures import style_of

BYTES, LAST, LONGEST = 1000, 8, 15
FLAT = {"backbone": 1.6, NGRAM: 2.4}


def record(row: str, seed: int, bits, swapped=None, scale: str = "medium") -> dict:
    """A record of `row`; `bits(segment)` and `swapped(segment)` give its curves in bits per byte."""
    made = fakes.record("qa1", seed=seed)
    config = get_artifact("lm-segments").with_all_files(row, scale, seed)
    nats = lambda value: value * log(2) * BYTES  # noqa: E731
    points = [{"segment": s, "nats": nats(bits(s)), "bits_per_byte": bits(s)} for s in range(1, LONGEST + 1)]
    if swapped is not None:
        for point in points:
            value = swapped(point["segment"])
            point |= {"swapped_nats": nats(value), "swapped_bits_per_byte": value}
    made["metrics"] = {
        "segments": points, "memory_off": {"nats": nats(bits(1)), "bits_per_byte": bits(1)}, "tokens": 114 * 128,
        "bytes": BYTES, "train_segments": LAST, "segment_size": 128, "validation": 3.0,
        "state_size": 4096 * (row in ("rmt", "armt")),
    }  # fmt: skip
    return made | {
        "artifact": "lm-segments", "row": row, "scale": scale, "run_id": config.id, "config": config.to_json(),
    }  # fmt: skip


def falling(start: float, gain: float, beyond: float = 0.0):
    """Down by `gain` from segment 1 to 2 and level to 8, then `beyond` more."""
    return lambda s: start - gain * (s > 1) - beyond * (s > LAST)


def study(rmt=0.03, armt=0.03, beyond=-0.01, first=1.6, swapped=0.01, seeds=3) -> list[dict]:
    """Records of all rows: what the memories gain, own and swapped, and beyond the segments of training."""
    found = []
    for seed in range(seeds):
        shift = 0.0006 * seed
        for row, gain in (("rmt", rmt), ("armt", armt)):
            own = falling(first + shift, gain, beyond)
            found.append(record(row, seed, own, lambda s, own=own: own(s) if s == 1 else own(1) + swapped))
        found.append(record("backbone", seed, lambda s, shift=shift: FLAT["backbone"] + shift))
        found.append(record("backbone-window", seed, falling(1.6 + shift, 0.1)))
    return [*found, record(NGRAM, 0, lambda s: FLAT[NGRAM])]


def verdicts(records) -> dict:
    return {verdict.claim.name: verdict for verdict in view_of("lm-segments", records).verdicts()}


def test_numbers_of_a_record_are_means_and_differences_of_its_curve():
    found = numbers(record("rmt", 0, lambda s: 2.0 - 0.01 * s, lambda s: 2.0))
    assert found["within"] == pytest.approx(1.95) and found["swapped"] == pytest.approx(2.0)
    assert found["worth"] == pytest.approx(0.08) and found["gain beyond"] == pytest.approx(0.04)
    assert found["worth of one"] == pytest.approx(0.02) and found["worth of more"] == pytest.approx(0.035)
    assert found["off"] == found["segment 1"] == pytest.approx(1.99)
    assert arms(study())["rmt: within"] == pytest.approx([1.57, 1.5706, 1.5712])


def test_all_claims_hold_if_the_paper_is_right():
    found = verdicts(study())
    assert {found[name].outcome for name in ("alike", "memory-helps", "no-better-beyond")} == {"holds"}
    assert all(effect.high < 0 for effect in found["memory-is-read"].effects)
    assert all(effect.effect < 0 for effect in found["last-segment-only"].effects)
    assert all(effect.high < 0 for effect in found["no-match-for-attention"].effects)


@pytest.mark.parametrize(
    ("claim", "records", "outcome"),
    [
        ("alike", study(armt=0.005), "fails"),
        ("alike", study(rmt=0.005), "fails"),
        ("alike", study(rmt=0.02), "holds"),  # they differ by a tenth of what attention gains
        ("alike", study(rmt=-0.01, armt=-0.01), "undecided"),  # there is nothing to be alike in
        ("alike", [r for r in study() if r["row"] != "backbone-window"], "not enough runs"),
        ("memory-helps", study(rmt=-0.02), "fails"),
        ("memory-helps", study(first=1.7), "fails"),
        ("memory-helps", study(swapped=-0.03), "undecided"),  # any memory does
        ("no-better-beyond", study(beyond=0.02), "fails"),
        ("no-better-beyond", study(armt=-0.01), "undecided"),  # nothing was gained that could be lost
        ("alike", study(seeds=2), "not enough runs"),
        ("memory-helps", [r for r in study() if r["row"] != NGRAM], "not enough runs"),
    ],
)
def test_claims_fail_if_it_is_otherwise(claim, records, outcome):
    assert verdicts(records)[claim].outcome == outcome


def test_a_backbone_that_is_no_better_than_counting_decides_nothing():
    worse = [r for r in study() if r["row"] != NGRAM] + [record(NGRAM, 0, lambda s: 1.0)]
    found = verdicts(worse)
    assert found["alike"].outcome == "undecided" and "no better than counting" in found["alike"].why


def test_figure_and_tables_have_the_records_numbers(tmp_path):
    view = view_of("lm-segments", study())
    view.save(tmp_path)
    lines = list(csv.DictReader((tmp_path / "lm-segments.csv").open()))
    gained = [float(x["value"]) for x in lines if (x["row"], x["metric"], x["x"]) == ("rmt", GAIN, "8")]
    assert gained == pytest.approx([0.03] * 3)
    assert {x["metric"] for x in lines} == {"bits per byte", OFF, GAIN, SWAPPED}
    assert (tmp_path / "lm-segments.svg").exists()
    assert "RMT: 1.601 bits per byte on the first segment, 1.571" in (tmp_path / "summary.txt").read_text()
    left, right = view.draw().axes
    labels = {line.get_color() for line in left.get_lines()}
    assert {style_of(STYLES, row).colour for row in ("rmt", "armt", "backbone", "backbone-window")} <= labels
    dotted = [line for line in left.get_lines() if line.get_linestyle() == ":"]
    assert len(dotted) == 2 and any(line.get_linestyle() == ":" for line in right.get_lines())
    assert [line.get_xdata()[0] for line in left.get_lines() if line.get_linestyle() == "-."] == [LAST]
    assert "rmt (3 runs) 1.601 on segment 1, 1.571 on segment 8, 1.581 on segment 15" in view.alt()
    tables = view.tables()
    assert "8 (last trained)" in tables and "1.571 ± 0.001" in tables
    assert "1.611 ± 0.001" in tables  # with swapped memory


def test_without_records_the_page_says_so_and_has_the_papers_words():
    view = view_of("lm-segments")
    compared = view.report.compare(view.results).to_html()
    assert compared.count("not run") == 5 and "not run" in view.claims()
    assert "similar to RMT despite a larger theoretical capacity" in view.tables() and "5,315,328" in view.tables()
    assert view.alt() and "Nothing was run" in view.report.caption(view.results)
    assert "stage&#x27;s segments" in (shown := pages.settings_fragment(view)) or "stage's segments" in shown


def test_a_record_of_the_study_is_whole():
    artifact = get_artifact("lm-segments")
    made = record("rmt", 0, falling(1.6, 0.03), falling(1.6, 0.0), scale="small")
    made["metrics"] |= {"state_size": 8 * 128, "validation": 3.0}
    assert artifact.check_metrics(made["metrics"], {"loss": [], "validation": [[3, 40, 3.0]]}, _config(made)) is None


def _config(made):
    from rmtlib.runs.spec import RunConfig

    return RunConfig.from_json(made["config"])
