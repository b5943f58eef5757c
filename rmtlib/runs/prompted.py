"""`rmtlib evaluate babilong`: a language model's answers, task by task and length by length, in one result file.

The file is written anew after every length of a task, and the same command goes on from it. It is no record of a row:
nothing was trained, and the book does not read it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rmtlib.data.babilong_prompts import NEW_TOKENS, SOURCE
from rmtlib.data.babilong_texts import open_texts
from rmtlib.data.sources import file_hash
from rmtlib.errors import RmtlibError
from rmtlib.evaluation.prompting import SCORERS, Answerer, load_answerer, score
from rmtlib.files import write_atomically
from rmtlib.runs.provenance import git_state, hardware, packages

OUT = Path("out") / "evaluate" / "babilong"


@dataclass(frozen=True)
class Prompting:
    """All that the answers depend on besides task and length. `shots`: see `Prompt.write`; None: all examples."""

    model: str
    tokenizer: str | None = None
    shots: int | None = None
    chat: bool = False
    samples: int = 100
    questions: str = "auto"
    background: str = "baseten"

    @property
    def file(self) -> Path:
        """Where the results are, unless another place is given."""
        name = Path(self.model).name or "model"
        return OUT / f"{name}-{hashlib.sha256(repr(self).encode()).hexdigest()[:8]}.json"


def evaluate(
    settings: Prompting,
    tasks: Sequence[str],
    lengths: Sequence[str],
    *,
    out: Path | None = None,
    load: Callable[..., Answerer] = load_answerer,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Any], Path]:
    """The content of the result file once it holds these tasks and lengths, and where it is.

    Args:
        out: the file; None: `settings.file`.
        load: what makes the model; it is called only if an answer is missing.
        progress: is told each result as it comes.

    Raises:
        RmtlibError: the file holds results of other settings, or something cannot be had.
    """
    path = out or settings.file
    content = _opened(path, settings)
    have = {(line["task"], line["length"]) for line in content["results"]}
    answerer: Answerer | None = None
    for task in tasks:
        missing = [length for length in lengths if (task, length) not in have]
        if not missing:
            continue
        texts = open_texts(task, questions=settings.questions, background=settings.background)
        answerer = answerer or load(settings.model, settings.tokenizer, chat=settings.chat)
        notes = [*answerer.notes, *texts.provenance]
        content["data"] += [note for i, note in enumerate(notes) if note not in [*content["data"], *notes[:i]]]
        for length in missing:
            start = time.monotonic()
            samples = texts.samples(length, texts.count(length, settings.samples))
            found = score(answerer, task, samples, settings.shots)
            line = {"task": task, "length": length, **found, "seconds": round(time.monotonic() - start, 1)}
            content["results"].append(line)
            content |= {"packages": packages(), "hardware": hardware(), "code": git_state()}
            write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
            progress(f"{task} {length}: {in_words(line)}")
    return content, path


def _opened(path: Path, settings: Prompting) -> dict[str, Any]:
    config = asdict(settings) | {"prompts": SOURCE, "new_tokens": NEW_TOKENS, "weights": _weights(settings.model)}
    if not path.exists():
        return {"schema": 1, "config": config, "results": [], "data": []}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name in config if content["config"].get(name, None) != config[name]]
        _ = [*content["data"], *((line["task"], line["length"], in_words(line)) for line in content["results"])]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise RmtlibError(f"{path} is no result file of this command; delete it or give another --out") from error
    if other:
        name = other[0]
        if name == "weights":
            raise RmtlibError(f"{path} has results of other weights than {settings.model} has now; give another --out")
        there, here = content["config"].get(name), config[name]
        raise RmtlibError(f"{path} has results with {name} {there!r}, not {here!r}; give another --out")
    return content


def _weights(model: str) -> dict[str, str] | None:
    """sha256 of the weight files of a folder, whose content may change under its name; None of a name."""
    files = sorted(Path(model).glob("*.safetensors"))
    return {path.name: file_hash(path) for path in files} or None


def in_words(line: dict[str, Any]) -> str:
    """One result: "64 of 100 right (exact match 12)"."""
    if why := line.get("cannot_be_read"):
        return f"cannot be read: {why}"
    right = line["correct"]
    return f"{right['babilong']} of {line['n']} right (exact match {right['strict']})"


def as_table(content: dict[str, Any], tasks: Sequence[str], lengths: Sequence[str]) -> list[list[str]]:
    """A line for each task and scorer, a column for each length: per cent of the samples."""
    found = {(line["task"], line["length"]): line for line in content["results"]}
    table = [["task", "scorer", *lengths]]
    for task in tasks:
        for scorer in SCORERS:
            cells = [found[task, length] for length in lengths]
            shown = [
                "too long" if "cannot_be_read" in c else f"{100 * c['correct'][scorer] / c['n']:.0f}" for c in cells
            ]
            table.append([task, scorer, *shown])
    return table
