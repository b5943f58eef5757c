"""The benchmarks' own parts: table, record, errors, and that the peers compute what the package computes."""

import json
import sys
from pathlib import Path

import pytest
import torch
import transformers

from rmtlib.errors import RmtlibError
from rmtlib.models.armt import ARMT
from rmtlib.models.delta_rule import DeltaRule
from rmtlib.models.hf_weights import decoder_from_hf
from rmtlib.models.rmt import RMT
from rmtlib.report import speed

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import cases, gpu, naive  # noqa: E402
from benchmarks.measure import Row, memory  # noqa: E402
from benchmarks.measure import speed as speed_row  # noqa: E402

FACTS = {
    "machine": "a machine",
    "commit": "abc",
    "date": "2026-01-02",
    "packages": {"python": "3"},
    "rounds": 3,
}
ROWS = [
    {"case": "one <case>", "what": "w", "ours": "1 ms", "peer": "2 ms", "ratio": 2.0, "target": ">= 3x"}
    | {"reached": False, "floor": "25%"},
    {"case": "other", "what": "no data", "ours": "", "peer": "", "ratio": None, "target": ""}
    | {"reached": None, "floor": ""},
]


# Rows, table, record


def test_rows_of_times_and_of_peaks():
    row = speed_row("a", "b", 0.5, 1.0, 2.0, 3.0, 0.25)
    assert row == Row("a", "b", "500 ms", "1 s", 2.0, ">= 3x", False, "50%")
    assert speed_row("a", "b", 0.5, 1.0, 2.0, 2.0).floor == ""
    assert memory("a", "b", 3e6, 1e7, 0.35) == Row("a", "b", "3 MB", "10 MB", 0.3, "<= 0.35x", True)
    assert not memory("a", "b", 4e6, 1e7, 0.35).reached


def test_the_table_has_a_line_for_each_row_and_says_where_it_comes_from():
    header, rule, *lines, empty, about = command.markdown({**FACTS, "rows": ROWS}).splitlines()
    assert header.count("|") == rule.count("|") == len(speed.HEADER) + 1
    assert lines == [
        "| one <case> | w | 1 ms | 2 ms | 2.00x | >= 3x | no | 25% |",
        "| other | no data |  |  |  |  | not measured |  |",
    ]
    assert not empty and all(fact in about for fact in ("a machine", "abc", "2026-01-02", "3 rounds"))


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A bench run of one case that costs nothing, kept as a record."""

    def fake(rounds):
        """A case."""
        yield from (Row(**row) for row in ROWS)

    monkeypatch.setattr(cases, "CASES", {"fake": fake})
    monkeypatch.setattr(cases, "measure_core", lambda: 1e9)
    monkeypatch.setattr(cases, "CORE_FLOPS", 0.0)
    monkeypatch.setattr(command, "RECORD", tmp_path / "record.json")
    monkeypatch.setattr(command, "_changed", lambda: False)
    monkeypatch.setattr(command.provenance, "git_state", lambda: {"commit": "abc", "dirty": False})
    assert command.main(["--record", "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "record.json"


def test_the_record_is_what_was_measured_and_becomes_the_books_table(recorded, tmp_path):
    assert recorded.read_bytes() == (tmp_path / "out" / "bench.json").read_bytes()
    record = speed.load(recorded)
    assert record["rows"] == ROWS and record["commit"] == "abc"
    text = speed.fragment(recorded, tmp_path / "extra")
    assert "one &lt;case&gt;" in text and "2.00x" in text and "commit abc" in text
    assert json.loads((tmp_path / "extra" / "bench.json").read_text()) == record


def test_gains_are_the_records_own():
    rows = {row["case"]: row for row in speed.load(command.RECORD)["rows"]}
    table = speed.gains(command.RECORD)
    for case in speed.TASKS.values():
        assert rows[case]["ours"] in table and rows[case]["peer"] in table
    assert f"{rows['RMT training']['ratio']:.3g} times as fast" in table


def test_a_record_that_was_edited_is_refused_and_none_is_said(recorded, tmp_path):
    recorded.write_text(recorded.read_text().replace("1 ms", "0.1 ms"))
    with pytest.raises(RmtlibError, match="was changed after it was written"):
        speed.fragment(recorded, tmp_path / "extra")
    recorded.write_text("{}")
    with pytest.raises(RmtlibError, match="not a record of make bench"):
        speed.load(recorded)
    assert "Not run" in speed.fragment(tmp_path / "none.json", tmp_path / "extra")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--only", "update,nonsense"], "unknown case 'nonsense'"),
        (["--rounds", "0"], "at least 1"),
        (["--record", "--only", "update"], "leave out --only"),
    ],
)
def test_bad_arguments_are_an_error_in_one_line(capsys, arguments, what):
    assert command.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1 and what in said.err


def test_uncommitted_code_leaves_no_record(capsys, monkeypatch):
    monkeypatch.setattr(command.provenance, "git_state", lambda: {"commit": "abc", "dirty": True})
    assert command.main(["--record"]) == 2
    assert "committed code" in capsys.readouterr().err


@pytest.mark.parametrize("record", [command.RECORD, command.GPU_RECORD])
def test_every_miss_of_the_record_is_explained_on_the_page(record):
    page = " ".join((ROOT / "book" / "speed.md").read_text().split())
    for row in speed.load(record)["rows"]:
        assert row["reached"] or f"`{row['case']}`" in page, f"why {row['case']} is missed is not on the page"


# Peers


@pytest.fixture
def hf():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=31, n_positions=32, n_layer=2, n_embd=16, n_head=2, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def compare(ours, peer):
    """Logits of the answer, loss and its gradient at the memory."""
    segments = cases._answer_batch(31, 7, 3, batch=2)
    cases._check(ours, peer, segments)
    ids, labels = [s.input_ids_BS for s in segments], [s.labels_BS for s in segments]
    loss = peer(ids, labels)
    assert torch.isfinite(loss)
    loss.backward()
    cases._train(ours, segments)
    count = sum((y != cases.IGNORE).sum() for y in labels)
    torch.testing.assert_close(ours.memory_MD.grad * 3 / count, peer.memory.grad, rtol=1e-3, atol=1e-6)


def test_the_naive_rmt_is_the_packages(hf):
    ours = RMT(decoder_from_hf(hf), 3)
    compare(ours, naive.NaiveRMT(hf, ours.memory_MD))


def test_the_naive_armt_is_the_packages(hf):
    ours = ARMT(decoder_from_hf(hf), 3, 4, DeltaRule("batched", "released"))
    torch.nn.init.normal_(ours.value_LDD, std=0.1)
    compare(ours, naive.NaiveARMT(hf, hf.transformer.h, ours))


# The GPU


@pytest.mark.parametrize("case", ["update", "host-time"])
def test_light_cases_run(case):
    rows = list(cases.CASES[case](1))
    assert len(rows) == 2 and all(isinstance(row.reached, bool) for row in rows)


def test_gpu_rows_are_rates_against_what_is_to_be_reached(monkeypatch):
    monkeypatch.setattr(cases, "CORE_FLOPS", 1e12)
    row = gpu._row("reading", "what", 1_000_000, (0.5, 1.0), 1.5e6, 1e5)
    assert row == Row("reading", "what", "2M tokens/s", "1M tokens/s", 2.0, ">= 1.5M tokens/s", True, "20%")
    assert not gpu._row("reading", "what", 1_000_000, (0.5, None), 3e6, 1e5).reached


def test_gpu_cases_without_a_gpu_are_refused_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr(command.provenance, "has_gpu", lambda: False)
    assert command.main(["--gpu"]) == 2
    assert capsys.readouterr().err == "error: --gpu: torch finds no GPU here\n"


def test_a_record_says_how_it_was_measured(recorded):
    record = json.loads(recorded.read_text())
    assert "one thread, float32 unless said, CPU time, median" in speed.about(record)
    assert "on the GPU, median" in speed.about({**record, "how": gpu.HOW})


@pytest.mark.cuda
@pytest.mark.parametrize("case", gpu.CASES)
def test_gpu_cases_run(case):
    assert list(gpu.CASES[case](1))
