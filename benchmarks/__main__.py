"""`python -m benchmarks`: run the cases, print the table, write it as Markdown and JSON into out/bench/."""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks import cases
from benchmarks.measure import Row
from rmtlib.experiments import provenance

HEADER = ("case", "what", "ours", "peer", "ratio", "to reach", "reached", "of the floor")


def cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    reached = {None: "not measured", True: "yes", False: "no"}[row.reached]
    return (row.case, row.what, row.ours, row.peer, ratio, row.target, reached, row.floor)


def markdown(rows: list[Row], facts: dict[str, Any]) -> str:
    """The table with machine and commit under it."""
    lines = [HEADER, tuple("---" for _ in HEADER), *map(cells, rows)]
    about = f"{facts['machine']}; one thread, float32, CPU time; commit {facts['commit']}; {facts['date']}"
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{about}\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", metavar="CASES", help=f"comma list of: {', '.join(cases.CASES)}")
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="rounds of A/B (default 3)")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.child:
        print(json.dumps(cases.child(given.child)))
        return 0
    chosen = given.only.split(",") if given.only else list(cases.CASES)
    unknown = [name for name in chosen if name not in cases.CASES]
    if unknown or given.rounds < 1:
        wrong = f"unknown case {unknown[0]!r}" if unknown else "rounds must be at least 1"
        print(f"error: {wrong}: cases are {', '.join(cases.CASES)}", file=sys.stderr)
        return 2
    cases.torch.set_num_threads(1)
    cases.CORE_FLOPS = cases.measure_core()
    rows = []
    for name in chosen:
        print(f"{name}: {str(cases.CASES[name].__doc__).splitlines()[0]}", file=sys.stderr, flush=True)
        for row in cases.CASES[name](given.rounds):
            rows.append(row)
            print("  " + " | ".join(cells(row)), file=sys.stderr, flush=True)
    git, hardware = provenance.git_state(), provenance.hardware()
    facts = {
        "machine": f"{hardware['cpu']}, {cases.CORE_FLOPS / 1e9:.0f} GFLOP/s in a matrix product",
        "commit": f"{git['commit']}{' with changes' if git['dirty'] else ''}",
        "date": time.strftime("%Y-%m-%d"),
        "packages": provenance.packages(),
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "bench.md").write_text(markdown(rows, facts))
    (given.out / "bench.json").write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    print(markdown(rows, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
