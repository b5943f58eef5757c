"""Bad input: drawn command lines, and settings with drawn values in drawn places."""

import copy
import json
import os
import random
import shlex
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from rmtlib import cli
from rmtlib.errors import RmtlibError
from rmtlib.experiments.registry import ARTIFACTS, all_artifacts
from rmtlib.runs.spec import RunConfig
from stress.trials import ROOT, Trial, forked, import_all

JUNK = (
    "", " ", "0", "-1", "1e9", "nan", "inf", "1.5", "01", "9" * 40, "x", "*", "?", "[", "../..", "/", "/dev/null", ".",
    "~nosuchuser", "a" * 5000, "ä", "\u202e", "\x1b[31m", "qa1,", ",", "qa1,,qa2", "none", "null", "{}", "--", "-",
    "%s", "$(id)", "a\nb", "smoke", "paper", "qa99", "figure5", "figure_5",
)  # fmt: skip
SELECTING = ("--scale", "--seeds")
REFUSING = {  # command -> options that refuse every word of `BAD`
    "run": (*SELECTING, "--shards", "--devices"), "queue": SELECTING, "plan": SELECTING, "rehearse": SELECTING,
    "publish": SELECTING, "evaluate": ("--lengths", "--tasks", "--shots", "--samples", "--background"),
}  # fmt: skip
COMMANDS = (*REFUSING, "status", "verify", "claims", "export", "data", "notebook", "worker", "peer")
OPTIONS = (
    "--scale", "--seeds", "--rows", "--tasks", "--jobs", "--time-budget", "--devices", "--shards", "--executor",
    "--address", "--json", "--fresh", "--out", "--to", "--model", "--write", "-p", "--parent", "--artifact",
    "--checkpoint", "--nonsense",
)  # fmt: skip
BAD = ("qa99", "-1", "9" * 40, "nan", "\u202e", "[", "a\nb", "../..")
"""One of these is the value of an option in every command line, so that none of them trains anything."""


def bad_commands(draw: random.Random, scratch: Path) -> Iterator[Trial]:
    """`rmtlib` is called with drawn words, at least one of them impossible; it says so in one line, with a status that
    is not 0, and starts nothing."""
    import_all()
    os.environ.update(RMTLIB_CACHE=str(scratch / "cache"), RMTLIB_OFFLINE="1")
    os.chdir(scratch)
    (scratch / "notebooks").symlink_to(ROOT / "notebooks")
    for _ in count():
        words = _command_line(draw)
        ended = forked(lambda words=words: cli.main(words), scratch / "log")  # type: ignore[misc]
        yield Trial("rmtlib " + shlex.join(words)[:300], _judged(ended.status, ended.said))


def _command_line(draw: random.Random) -> list[str]:
    command = draw.choice(COMMANDS)
    words = [draw.choice(JUNK) if draw.random() < 0.1 else command]
    words += draw.choices([*ARTIFACTS, *JUNK], k=draw.randint(0, 2))
    for _ in range(draw.randint(0, 3)):
        words += [draw.choice(OPTIONS), draw.choice(JUNK)]
    if command == "evaluate" and draw.random() < 0.8:
        words[1:2] = ["babilong", *draw.choice((["--model", "smollm2"], ["--write", "samples"]))]
    return [*words, draw.choice(REFUSING.get(command, ("--nonsense",))), draw.choice(BAD)]


def _judged(status: int | None, said: str) -> str | None:
    if status is None:
        return "it hung"
    lines = said.splitlines()
    if status == 0 and any(word in said for word in ("usage:", "rmtlib 0")):
        return None  # --help or --version, which go before everything else
    if status not in (2, 75) or "Traceback" in said:
        return f"status {status}: {said[-300:]}"
    one = len(lines) == 1 and lines[0].startswith("error: ") and lines[0].isprintable()
    return None if one else f"no line of error: {said[:300]!a}"


VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**70, -0.5, 0.5, 1e308, float("nan"), float("inf"), "", "x", "3", "nan", [], {}, [[]],
    [1, "x"], {"x": 1}, [None],
)  # fmt: skip


def bad_settings(draw: random.Random, scratch: Path) -> Iterator[Trial]:
    """A config of any artifact gets a drawn value in a drawn place, another key, or one less; what reads it takes it or
    says in one line what is wrong."""
    import_all()
    configs = [
        (artifact, artifact.config(row.name, scale, 0).to_json())
        for artifact in all_artifacts().values()
        for scale in ("smoke", "paper")
        for row in artifact.rows[:6]
        if _has(artifact, row.name, scale)
    ]
    for _ in count():
        artifact, config = draw.choice(configs)
        changed = copy.deepcopy(config)
        what = _change(draw, changed)
        yield Trial(f"{artifact.name} {config['row']} {config['scale']}: {what}", _read(artifact, changed))


def _has(artifact: Any, row: str, scale: str) -> bool:
    try:
        artifact.config(row, scale, 0)
    except RmtlibError:
        return False
    return True


def _change(draw: random.Random, value: Any) -> str:
    """Change something at a drawn depth of the nested lists and dicts; in words."""
    path: list[str] = []
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw.choice(keys)
        if isinstance(value[key], (dict, list)) and value[key] and draw.random() < 0.85:
            path.append(str(key))
            value = value[key]
            continue
        where = ".".join([*path, str(key)])
        how = draw.choice(("set", "set", "set", "delete", "add"))
        if how == "delete":
            del value[key]
            return f"{where} taken out"
        new = draw.choice(VALUES)
        if how == "add" and isinstance(value, dict):
            value["nonsense"] = new
            return f"nonsense = {new!r} beside {where}"
        value[key] = new
        return f"{where} = {new!r}"


def _read(artifact: Any, changed: dict[str, Any]) -> str | None:
    try:
        text = json.dumps(changed)
    except (ValueError, OverflowError):
        return None
    try:
        config = RunConfig.from_json(json.loads(text))
        artifact.cost(config)
    except RmtlibError as error:
        return None if "\n" not in str(error) else f"more than a line: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None
