"""Files that were damaged on the disk: of a half-trained run, of a finished one, of the cache, of published records."""

import json
import random
import shutil
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from rmtlib.experiments.registry import all_artifacts
from rmtlib.runs.records import load_record, verify
from stress.disks import cached_texts, read_cache
from stress.trials import ROOT, Subject, Trial, forked, subjects

from interrupted import strike_at  # isort: skip


def damage(draw: random.Random, path: Path) -> str:
    """Damage the file; in words."""
    content = bytearray(path.read_bytes())
    kind = draw.choice(("bit", "bit", "digit", "truncated", "empty", "zeros", "missing"))
    digits = [i for i, byte in enumerate(content) if chr(byte) in "0123456789"]
    if kind == "missing":
        path.unlink()
        return kind
    if kind == "bit" and content:
        at = draw.randrange(len(content))
        content[at] ^= 1 << draw.randrange(8)
        kind = f"bit changed at {at}"
    elif kind == "digit" and digits:
        at = draw.choice(digits)
        content[at] = ord("0") + (content[at] - ord("0") + draw.randint(1, 9)) % 10
        kind = f"digit changed at {at}"
    elif kind == "truncated" and content:
        content = content[: draw.randrange(len(content))]
        kind = f"truncated to {len(content)}"
    else:
        content = bytearray(len(content) if kind == "zeros" else 0)
    path.write_bytes(content)
    return kind


def files_below(folder: Path) -> list[Path]:
    """All but the locks, which hold nothing."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and "lock" not in path.name)


def damaged_files(draw: random.Random, scratch: Path) -> Iterator[Trial]:
    """Every file of a half-trained run, of a finished run, of the cache and of the published records is changed, cut or
    emptied in turn; that is noticed in one line or mended, and no wrong number comes of it."""
    runs = subjects(scratch)
    texts = cached_texts(scratch / "cache")
    halves = [(subject, _half_trained(subject, scratch / f"half-{i}")) for i, subject in enumerate(runs)]
    records = sorted((ROOT / "results").glob("*/*.json"))
    for number in count():
        home = scratch / f"trial-{number}"
        kind = ("half", "finished", "cache", "record")[number % 4]
        if kind == "half":
            subject, half = draw.choice(halves)
            shutil.copytree(half, home)
            yield _half(draw, subject, home)
        elif kind == "finished":
            yield _finished(draw, draw.choice(runs), scratch / "whole", home)
        elif kind == "cache":
            shutil.copytree(scratch / "cache", home / "cache")
            path = draw.choice(files_below(home))
            what = f"cache, {path.name}: {damage(draw, path)}"
            ended = forked(lambda home=home: read_cache(home / "cache", texts), scratch / "log")  # type: ignore[misc]
            yield Trial(what, ended.complaint())
        else:
            yield _record(draw, draw.choice(records), home)
        shutil.rmtree(home, ignore_errors=True)


def _half_trained(subject: Subject, home: Path) -> Path:
    """A home in which the run was killed as late as possible before its end."""
    for change in range(60, 0, -4):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()

        def call(change: int = change) -> int:
            strike_at(change, signal.SIGKILL, str(home))
            return subject.train(home)

        ended = forked(call, home.with_suffix(".log"))
        if ended.status == -signal.SIGKILL and (subject.folder(home) / "checkpoint.json").exists():
            return home
    raise RuntimeError(f"{subject.config.row} was never caught with a checkpoint")


def _half(draw: random.Random, subject: Subject, home: Path) -> Trial:
    path = draw.choice(files_below(subject.folder(home)))
    what = f"half-trained {subject.config.row}, {path.name}: {damage(draw, path)}"
    ended = forked(lambda: subject.train(home), home / "log")
    return Trial(what, ended.complaint() or (subject.difference(home) if ended.status == 0 else None))


def _finished(draw: random.Random, subject: Subject, whole: Path, home: Path) -> Trial:
    """Publishing it is refused, or what is published is what it was."""
    folder = subject.folder(home)
    shutil.copytree(subject.folder(whole), folder)
    if not (folder / "record.json").exists():
        return Trial("no record")
    path = draw.choice(files_below(folder))
    what = f"finished {subject.config.row}, {path.name}: {damage(draw, path)}"
    ended = forked(lambda: _take(subject, home), home / "log")
    return Trial(what, ended.complaint() or (subject.difference(home) if ended.status == 0 else None))


def _take(subject: Subject, home: Path) -> int:
    """What `rmtlib run` does with a finished run, and `rmtlib publish` before it copies: 2 if one of them refuses."""
    from rmtlib.runs.folder import changed_inputs

    status = subject.train(home)
    if status == 0:
        record = load_record(subject.folder(home) / "record.json")
        if changed := changed_inputs(subject.folder(home), record.get("inputs", {})):
            print(f"error: {changed} is not what its record was made from")
            return 2
    return status


def _record(draw: random.Random, path: Path, home: Path) -> Trial:
    """`verify` names the damaged one of a folder with one record, or its content is what it was."""
    folder = home / path.parent.name
    folder.mkdir(parents=True)
    copy = Path(shutil.copy(path, folder))
    known = json.loads(path.read_text())
    what = f"published {path.parent.name}/{path.name}: {damage(draw, copy)}"
    if not copy.exists():
        return Trial(what)
    try:
        problems = verify(all_artifacts(), home).problems
    except Exception as error:
        return Trial(what, f"verify: {type(error).__name__}: {error}")
    if any("\n" in problem for problem in problems):
        return Trial(what, "verify says more than a line")
    try:
        same = json.loads(copy.read_text()) == known
    except (ValueError, RecursionError):
        same = False
    return Trial(what, None if problems or same else "verify accepts it")
