"""`python -m stress`: try to break rmtlib, print one table of what was tried and lost, and keep it in out/stress/.

Every fault runs in a process of its own, with trials drawn from the seed, until its share of the time is used. Exit
status 1 if anything was lost. With --record it is also kept as stress/record.json, which the book's page is made from.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rmtlib.errors import RmtlibError
from rmtlib.report.stress import HEADER, about, cells
from rmtlib.runs import provenance
from rmtlib.runs.records import write_record

RECORD = Path(__file__).with_name("record.json")
FAULTS = {  # name -> where it is, and its share of the time
    "kills": ("stress.kills:kills", 4),
    "killed-commands": ("stress.kills:killed_commands", 4),
    "power-cuts": ("stress.disks:power_cuts", 4),
    "full-disks": ("stress.disks:full_disks", 3),
    "mirrors": ("stress.mirrors:hostile_mirrors", 3),
    "damaged-files": ("stress.damage:damaged_files", 4),
    "bad-commands": ("stress.inputs:bad_commands", 2),
    "bad-settings": ("stress.inputs:bad_settings", 1),
    "long-streams": ("stress.streams:long_streams", 4),
    "lost-machines": ("stress.cluster:lost_machines", 4),
}
SHORT, LONG = 540.0, 3300.0
"""Seconds for all trials; starting and clearing up come on top."""
PATIENCE = 600.0
"""Seconds that a fault may take beyond its share: its last trial, and what is trained undisturbed before the first."""


def load(name: str) -> Any:
    """The function of a fault."""
    module, function = FAULTS[name][0].split(":")
    return getattr(import_module(module), function)


def child(name: str, seed: int, seconds: float, scratch: Path) -> None:
    """In a process of its own: a line of JSON for each trial, or why there is none."""
    from stress.trials import NotRun

    with os.fdopen(os.dup(1), "w") as out:

        def say(**line: Any) -> None:
            print(json.dumps(line), file=out, flush=True)

        try:
            with closing(load(name)(random.Random(f"{seed} {name}"), scratch)) as trials:
                deadline = None  # counts from the first trial: before it lies what all of them need
                for trial in trials:
                    say(what=trial.what, lost=trial.lost)
                    deadline = deadline or time.monotonic() + seconds
                    if time.monotonic() > deadline:
                        break
        except NotRun as reason:
            say(not_run=str(reason))


def attempt(name: str, seed: int, seconds: float) -> dict[str, Any]:
    """Run a fault's trials in a process of its own; its row of the table."""
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="rmtlib-stress-"))
    command = [sys.executable, "-m", "stress", "--child", name, "--seed", str(seed), "--seconds", str(seconds)]
    lines: list[dict[str, Any]] = []
    end = None
    with open(scratch / "child.log", "w+") as log:
        process = subprocess.Popen(
            [*command, "--scratch", str(scratch)], stdout=subprocess.PIPE, stderr=log, process_group=0
        )
        try:
            out, _ = process.communicate(timeout=seconds + PATIENCE)
        except subprocess.TimeoutExpired:
            end = f"its trials hung for {seconds + PATIENCE:.0f} s"
            os.killpg(process.pid, signal.SIGKILL)
            out, _ = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            _unmount(scratch)
        lines = [json.loads(line) for line in out.decode(errors="replace").splitlines() if line.startswith("{")]
        if end is None and process.returncode != 0:
            log.seek(0)
            last = (log.read().strip().splitlines() or ["?"])[-1]
            end = f"the trials themselves failed ({process.returncode}): {last[:300]}"
    shutil.rmtree(scratch, ignore_errors=True)
    return row(name, lines, end) | {"seconds": round(time.monotonic() - began)}


def row(name: str, lines: list[dict[str, Any]], end: str | None) -> dict[str, Any]:
    """A fault's row of the table, from what its process said, and what was wrong with its end."""
    trials = [line for line in lines if "what" in line]
    losses = [f"trial {i + 1}, {line['what']}: {line['lost']}" for i, line in enumerate(trials) if line["lost"]]
    lost = [*losses, *filter(None, [end])]
    tried = len(trials) + bool(end)
    return {
        "fault": name,
        "what": " ".join(str(load(name).__doc__).split()),
        "trials": tried,
        "survived": tried - len(lost),
        "lost": len(lost),
        "losses": lost,
        "not_run": next((line["not_run"] for line in lines if "not_run" in line), None),
    }


def _unmount(scratch: Path) -> None:
    """Unmount what a killed fault left mounted."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if (place := line.split()[1]).startswith(str(scratch)):
            subprocess.run(["umount", "-l", place], capture_output=True)


def markdown(record: dict[str, Any]) -> str:
    """The table, with what was lost and where the numbers come from under it."""
    lines = [HEADER, tuple("---" for _ in HEADER), *map(cells, record["rows"])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    losses = [f"lost: {row['fault']}, {loss}" for row in record["rows"] for loss in row["losses"]]
    return "\n".join([table, "", *losses, about(record), ""])


def _dirty() -> bool:
    """Whether what is tried, or what tries it, has uncommitted changes, as far as git can tell."""
    command = ["git", "status", "--porcelain", "--", "stress", "tests", f":!stress/{RECORD.name}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return bool(provenance.git_state()["dirty"]) or done.stdout != ""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m stress", description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", metavar="FAULTS", help=f"comma list of: {', '.join(FAULTS)}")
    parser.add_argument("--seed", metavar="N", type=int, help="repeats the trials of that seed (default: drawn)")
    parser.add_argument("--long", action="store_true", help="an hour instead of ten minutes")
    parser.add_argument("--seconds", metavar="S", type=float, help="for all trials together, instead")
    parser.add_argument("--out", type=Path, default=Path("out/stress"))
    parser.add_argument("--record", action="store_true", help=f"also keep it as stress/{RECORD.name}, for the book")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.child:
        child(given.child, given.seed, given.seconds, given.scratch)
        return 0
    chosen = given.only.split(",") if given.only else list(FAULTS)
    unknown = [name for name in chosen if name not in FAULTS]
    wrong = ""
    if unknown:
        wrong = f"unknown fault {unknown[0]!r}: faults are {', '.join(FAULTS)}"
    elif given.seconds is not None and not 0 < given.seconds < float("inf"):
        wrong = f"--seconds {given.seconds}: it must be above 0"
    elif given.record and given.only:
        wrong = "--record keeps whole runs: leave out --only"
    elif given.record and _dirty():
        wrong = "--record keeps runs of committed code: commit the changes in rmtlib, stress and tests first"
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    seconds = given.seconds or (LONG if given.long else SHORT)
    print(f"seed {seed}; --seed {seed} --only FAULT repeats a fault's trials", file=sys.stderr, flush=True)
    began, rows = time.monotonic(), []
    shares = sum(FAULTS[name][1] for name in chosen)
    for name in chosen:
        rows.append(attempt(name, seed, seconds * FAULTS[name][1] / shares))
        print("  " + " | ".join(cells(rows[-1])), file=sys.stderr, flush=True)
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "commit": provenance.git_state()["commit"],
        "dirty": _dirty(),
        "hardware": provenance.hardware(),
        "packages": provenance.packages(),
        "seed": seed,
        "seconds": round(time.monotonic() - began),
        "rows": rows,
    }
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "stress.md").write_text(markdown(record), encoding="utf-8")
        write_record(given.out / "stress.json", record)
        if given.record:
            write_record(RECORD, record)
    except (OSError, RmtlibError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(record))
    return int(any(row["lost"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
