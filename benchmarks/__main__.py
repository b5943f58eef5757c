"""`python -m benchmarks`: run the cases, print the table, write it as Markdown and JSON into out/bench/.

With --record it is also kept as benchmarks/record.json, which the book's page on speed is made from. --gpu measures one
GPU instead, and keeps benchmarks/gpu.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import cases, gpu
from rmtlib.errors import RmtlibError
from rmtlib.report.speed import HEADER, about, cells
from rmtlib.runs import provenance
from rmtlib.runs.records import write_record

RECORD = Path(__file__).with_name("record.json")
GPU_RECORD = Path(__file__).with_name("gpu.json")


def markdown(record: dict[str, Any]) -> str:
    """The table with machine and commit under it."""
    lines = [HEADER, tuple("---" for _ in HEADER), *map(cells, record["rows"])]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{about(record)}\n"


def _changed() -> bool:
    """Whether the code here has uncommitted changes, as far as git can tell."""
    command = ["git", "status", "--porcelain", "--", "benchmarks", ":!benchmarks/*.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return done.stdout != ""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=str(__doc__).splitlines()[0])
    known = f"{', '.join(cases.CASES)}; with --gpu: {', '.join(gpu.CASES)}"
    parser.add_argument("--only", metavar="CASES", help=f"comma list of: {known}")
    parser.add_argument("--gpu", action="store_true", help="measure the GPU instead")
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="rounds of A/B (default 3)")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    kept = f"also keep it as benchmarks/{RECORD.name} or {GPU_RECORD.name}, for the book"
    parser.add_argument("--record", action="store_true", help=kept)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.child:
        print(json.dumps(cases.child(given.child)))
        return 0
    known_cases = gpu.CASES if given.gpu else cases.CASES
    chosen = given.only.split(",") if given.only else list(known_cases)
    unknown = [name for name in chosen if name not in known_cases]
    wrong = ""
    if given.gpu and not provenance.has_gpu():
        wrong = "--gpu: torch finds no GPU here"
    elif unknown:
        wrong = f"unknown case {unknown[0]!r}: cases are {', '.join(known_cases)}"
    elif given.rounds < 1:
        wrong = f"--rounds {given.rounds}: it must be at least 1"
    elif given.record and given.only:
        wrong = "--record keeps whole runs: leave out --only"
    elif given.record and (provenance.git_state()["dirty"] or _changed()):
        wrong = "--record keeps runs of committed code: commit the changes in rmtlib and benchmarks and call this again"
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    cases.torch.set_num_threads(1)
    cases.CORE_FLOPS = gpu.measure_product() if given.gpu else cases.measure_core()
    rows: list[dict[str, Any]] = []
    for name in chosen:
        print(f"{name}: {str(known_cases[name].__doc__).splitlines()[0]}", file=sys.stderr, flush=True)
        for row in known_cases[name](given.rounds):
            rows.append(asdict(row))
            print("  " + " | ".join(cells(rows[-1])), file=sys.stderr, flush=True)
    git, chip = provenance.git_state(), provenance.hardware()["gpu" if given.gpu else "cpu"]
    record = {
        "machine": f"{chip}, {cases.CORE_FLOPS / 1e9:,.0f} GFLOP/s in a matrix product",
        **({"how": gpu.HOW} if given.gpu else {}),
        "commit": f"{git['commit']}{' with changes' if git['dirty'] else ''}",
        "date": time.strftime("%Y-%m-%d"),
        "packages": provenance.packages(),
        "rounds": given.rounds,
        "rows": rows,
    }
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "bench.md").write_text(markdown(record))
        write_record(given.out / "bench.json", record)
        if given.record:
            write_record(GPU_RECORD if given.gpu else RECORD, record)
    except (OSError, RmtlibError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
