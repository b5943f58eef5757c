"""Disks that lose power or have no room left: small ones, of an image file or of memory, mounted for the trial."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from rmtlib.data.babilong import Sample
from rmtlib.errors import RmtlibError
from rmtlib.experiments.registry import get_artifact
from rmtlib.runs.records import load_record, publish, record_path
from stress.kills import drawn_change
from stress.trials import ROOT, NotRun, Subject, Trial, forked, subjects

from interrupted import strike_at  # isort: skip

IMAGE_BYTES = 24 << 20
OPTIONS = ("", "commit=1", "data=journal", "data=writeback,noauto_da_alloc", "noauto_da_alloc,commit=30")
"""Of ext4: how soon, and in which order, it writes what nobody has asked it to."""
CUTS = 8
"""Power cuts of one run, which is then left to finish."""


@contextlib.contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """`mount ARGUMENTS folder` while this is open. NotRun if this machine does not let us."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True)
    except OSError as error:
        raise NotRun(f"no mount here ({error.strerror})") from error
    if done.returncode:
        first = (done.stderr.strip().splitlines() or ["mount failed"])[0]
        raise NotRun(f"{first.removeprefix('mount: ').replace(f'{folder}: ', '')} (it takes root and loop devices)")
    try:
        yield folder
    finally:
        for _ in range(50):
            if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)


def power_cuts(draw: random.Random, scratch: Path) -> Iterator[Trial]:
    """A run trains on a mounted disk image. At a drawn change of a file, what the image holds at that moment is taken
    for the disk after a power cut, and the run continues on that."""
    image = _new_image(scratch / "try.img")
    with mounted(scratch / "mount", "-o", "loop", str(image)):
        pass
    runs = subjects(scratch)
    for chain in count():
        yield from _cut_chain(draw, draw.choice(runs), scratch, f"disk-{chain}")


def _new_image(path: Path) -> Path:
    with open(path, "wb") as file:
        file.truncate(IMAGE_BYTES)
    try:
        done = subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], capture_output=True, text=True)
    except OSError as error:
        raise NotRun("no mkfs.ext4 here: apt-get install e2fsprogs") from error
    if done.returncode:
        raise NotRun(f"mkfs.ext4 failed: {done.stderr.strip()[:200]}")
    return path


def _cut_chain(draw: random.Random, subject: Subject, scratch: Path, name: str) -> Iterator[Trial]:
    disk, mount, log = _new_image(scratch / f"{name}.img"), scratch / "mount", scratch / "cut.log"
    cuts: list[str] = []
    lost = None
    for cut in range(CUTS + 1):
        options, change, wait = draw.choice(OPTIONS), drawn_change(draw), draw.choice((0.0, 0.0, draw.uniform(0, 2)))
        after = scratch / f"{name}-{cut}.img"

        def power_off(disk: Path = disk, after: Path = after, wait: float = wait) -> None:
            time.sleep(wait)  # in which the kernel may write some of what nobody asked it to
            subprocess.run(["cp", "--sparse=always", str(disk), str(after)], check=True)

        def call(change: int = change if cut < CUTS else sys.maxsize) -> int:
            strike_at(change, signal.SIGSTOP, str(mount))
            return subject.train(mount)

        with mounted(mount, "-o", f"loop{',' * bool(options)}{options}", str(disk)):
            ended = forked(call, log, stopped=power_off)
            if after.exists():
                cuts.append(
                    f"cut at change {change}{f' and {wait:.1f} s' if wait else ''}, ext4 {options or 'as it is'}"
                )
            else:
                lost = ended.complaint() or ended.refusal() or subject.difference(mount)
        disk.unlink()
        if not after.exists():
            break
        disk = after
    for i, what in enumerate(cuts):
        yield Trial(f"{subject.config.row}: {what}", lost if i == len(cuts) - 1 else None)
    if lost and not cuts:
        yield Trial(subject.config.row, lost)


def full_disks(draw: random.Random, scratch: Path) -> Iterator[Trial]:
    """A disk in memory has no room left during a run, while texts are kept in the cache, or while records are
    published; then room is made, and the same command continues."""
    size = 6 << 20
    with mounted(scratch / "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        pass
    runs = subjects(scratch)
    cache_ids = cached_texts(scratch / "mount-none")
    records = sorted((ROOT / "results").glob("*/*.json"))
    for number in count():
        with mounted(scratch / "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs") as disk:
            kind = ("cache", "publish", "run", "run")[number % 4]
            free = 4096 * draw.randint(0, 40 if kind != "publish" else 6)
            ballast = disk / "ballast"
            with open(ballast, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size - free)
            log = scratch / "full.log"
            if kind == "run":
                lost = _full_run(draw.choice(runs), disk, ballast, log)
            elif kind == "cache":
                lost = _full_cache(disk, ballast, log, cache_ids)
            else:
                lost = _full_publish(draw.choice(records), scratch / f"published-{number}", disk, ballast, log)
            yield Trial(f"{kind} with {free} bytes free", lost)


def _full_run(subject: Subject, disk: Path, ballast: Path, log: Path) -> str | None:
    ended = forked(lambda: subject.train(disk), log)
    if complaint := ended.complaint():
        return f"on the full disk: {complaint}"
    ballast.unlink()
    ended = forked(lambda: subject.train(disk), log)
    return ended.complaint() or ended.refusal() or subject.difference(disk)


def cached_texts(home: Path) -> list[list[int]]:
    """Ids of a few samples, whose background is kept in the cache."""
    from rmtlib.experiments.babilong.run import open_data
    from rmtlib.experiments.babilong.settings import Params
    from rmtlib.settings import from_dict

    os.environ["RMTLIB_CACHE"] = str(home)
    config = get_artifact("figure-5").config("qa1", "smoke", 0)
    data = open_data("qa1", from_dict(Params, config.to_json()["params"]))
    samples: list[Sample] = [builder.build(i, 300) for builder in (data.train, data.test) for i in range(3)]
    return [[int(token) for token in sample.tokens[0 : len(sample.tokens)]] for sample in samples]


def read_cache(home: Path, expected: list[list[int]]) -> int:
    """As a command does it: the status, 1 if other texts come out than `expected`."""
    try:
        if cached_texts(home) != expected:
            print("other texts came out of the cache")
            return 1
    except RmtlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _full_cache(disk: Path, ballast: Path, log: Path, expected: list[list[int]]) -> str | None:
    ended = forked(lambda: read_cache(disk / "cache", expected), log)
    if complaint := ended.complaint():
        return f"on the full disk: {complaint}"
    ballast.unlink()
    ended = forked(lambda: read_cache(disk / "cache", expected), log)
    return ended.complaint() or ended.refusal()


def publish_one(record: Path, runs: Path, results: Path) -> int:
    """Publish a published record once more, into `results`; the exit status."""
    try:
        known = load_record(record)
        done = publish(get_artifact(known["artifact"]), slugs=[record.stem], runs_dir=runs, results_dir=results)
        if done.refused:
            raise RmtlibError(done.refused[0]["reason"])
    except RmtlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _full_publish(record: Path, runs: Path, disk: Path, ballast: Path, log: Path) -> str | None:
    known = load_record(record)
    folder = runs / known["artifact"] / record.stem
    folder.mkdir(parents=True)
    shutil.copy(record, folder / "record.json")
    results = disk / "results"
    ended = forked(lambda: publish_one(record, runs, results), log)
    if complaint := ended.complaint():
        return f"on the full disk: {complaint}"
    target = record_path(known, results)
    if ended.status == 2 and [path for path in results.rglob("*") if path.is_file()]:
        return "a half-written file was left in results/"
    ballast.unlink()
    ended = forked(lambda: publish_one(record, runs, results), log)
    if complaint := ended.complaint() or ended.refusal():
        return complaint
    return None if load_record(target) == known else "another record was published"
