"""`rmtlib export`: what is written is what was measured, and the schemas say so."""

import csv
import json

import fakes
import pytest

from rmtlib.cli import main
from rmtlib.errors import RmtlibError
from rmtlib.experiments.registry import ARTIFACTS
from rmtlib.experiments.view import view_of
from rmtlib.report.export import CLAIM_COLUMNS, COLUMNS, EFFECT_COLUMNS, SHARE, export, measurements, schemas, unit_of
from rmtlib.report.measurements import Measurement
from rmtlib.report.verdicts import as_data
from rmtlib.runs.records import find_records

VALIDATOR = pytest.importorskip("jsonschema").Draft202012Validator


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """An export of one artifact, and the view that it is of."""
    folder = tmp_path_factory.mktemp("export")
    view = view_of("figure-5", published=[*fakes.seeds("qa1", (0.02, 0.1, 0.18, 0.1)), *fakes.seeds("qa2", (0.3,))])
    paths = export([view], folder)
    assert {path.name for path in paths} == {path.name for path in folder.iterdir()}
    return folder, view


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def lines(folder, name):
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_json_holds_every_measurement_and_claim(written):
    folder, view = written
    found = [Measurement(**{k: v for k, v in line.items() if k != "unit"}) for line in read(folder, "measurements")]
    assert found == view.results.long_form()
    assert read(folder, "claims") == json.loads(json.dumps(as_data(view)))


def test_csv_says_the_same_as_json(written):
    folder, _ = written
    for told, line in zip(read(folder, "measurements"), lines(folder, "measurements"), strict=True):
        for name, value in told.items():
            if isinstance(value, float):
                assert float(line[name]) == pytest.approx(value, rel=1e-9)
            else:
                assert line[name] == ("" if value is None else str(value))
    table = lines(folder, "claims")
    claims = read(folder, "claims")
    assert len(table) == sum(max(1, len(claim["effects"])) for claim in claims)
    for claim in claims:
        of_claim = [line for line in table if (line["claim"], line["scale"]) == (claim["claim"], claim["scale"])]
        assert {line["verdict"] for line in of_claim} == {claim["verdict"]}
        for line, effect in zip(of_claim, claim["effects"], strict=False):
            assert float(line["effect"]) == pytest.approx(effect["effect"], rel=1e-9, abs=1e-12)
            assert line["n"] == " ".join(map(str, effect["n"])) and line["contrast"] == effect["contrast"]


def test_the_schemas_are_valid_accept_what_is_written_and_refuse_what_is_not(written):
    folder, _ = written
    for name in ("measurements", "claims"):
        schema, data = read(folder, f"{name}.schema"), read(folder, name)
        VALIDATOR.check_schema(schema)
        assert schema == schemas()[name] and list(VALIDATOR(schema).iter_errors(data)) == []
        for key in data[0]:
            assert list(VALIDATOR(schema).iter_errors([{k: v for k, v in data[0].items() if k != key}]))
            assert list(VALIDATOR(schema).iter_errors([data[0] | {key: object}])), f"{key} may be anything"
        assert list(VALIDATOR(schema).iter_errors([data[0] | {"more": 1}]))


def test_every_column_is_explained(written):
    folder, _ = written
    assert {*COLUMNS} == {*Measurement._fields, "unit"}
    (numbers, claims) = (read(folder, f"{name}.schema")["items"]["properties"] for name in ("measurements", "claims"))
    assert all(column["description"] for column in (*numbers.values(), *claims.values()))
    assert {*claims} == {*CLAIM_COLUMNS} == {*read(folder, "claims")[0]}
    effects = claims["effects"]["items"]["properties"]
    assert {*effects} == {*EFFECT_COLUMNS} == next({*c["effects"][0]} for c in read(folder, "claims") if c["effects"])


def test_units_fit_the_published_numbers():
    found = measurements(view_of(name, published=find_records(name, where=("results",))) for name in ARTIFACTS)
    shares = [line for line in found if line["unit"] == SHARE]
    assert shares and all(-1 <= line["value"] <= 1 for line in shares)
    assert unit_of("window of 2 segments: bits per byte") == "bits per byte" and unit_of("exact match") == SHARE
    assert unit_of("cache, tokens") == "tokens" and unit_of("gain of history") == "bits per byte"


def test_the_command_writes_the_named_artifacts_and_says_where(tmp_path, capsys, monkeypatch):
    fakes.publish(tmp_path / "results", fakes.seeds("qa1", (0.1, 0.2)))
    monkeypatch.chdir(tmp_path)
    assert main(["export", "figure-5", "--to", "there", "--json"]) == 0
    assert [(tmp_path / path).is_file() for path in json.loads(capsys.readouterr().out)] == [True] * 6
    assert {line["artifact"] for line in read(tmp_path / "there", "measurements")} == {"figure-5"}
    assert {line["source"] for line in read(tmp_path / "there", "measurements")} == {"published", "paper"}
    assert main(["export", "figure-9"]) == 2 and "unknown artifact" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_and_one_without_records_are_told_in_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "quadratic"]) == 2
    assert "no folder results: call this in the project's folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "results").mkdir()
    (tmp_path / "file").write_text("mine")
    assert main(["export", "quadratic", "--to", "file"]) == 2
    assert "error: cannot write file/measurements.csv (File exists); fix that" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_an_interrupted_export_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    view = view_of("quadratic")
    export([view], tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    monkeypatch.setattr("rmtlib.report.export.SHARE", "of another kind, " * 1000)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RmtlibError, match="the disk is full"):
        export([view], tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
