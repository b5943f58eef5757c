"""The command `rmtlib evaluate`: a benchmark's prompts for any language model, or its samples for another harness."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.terminal import print_json, print_table

TASKS = ("qa1", "qa2", "qa3", "qa4", "qa5")
TEXT = "ask any language model a benchmark's questions, in its own prompts; or write the samples for other harnesses"


def add_options(command: Any, whole: Callable[[str], int | None]) -> None:
    """The options of the command; `whole` reads a number from 1 up."""
    command.add_argument("benchmark", choices=("babilong",), metavar="BENCHMARK", help="babilong")
    command.add_argument(
        "--model", metavar="NAME", help="a causal model's name on the Hugging Face hub, a folder, or smollm2"
    )
    command.add_argument("--tokenizer", metavar="NAME", help="whose tokeniser (default: the model's or its backbone's)")
    command.add_argument(
        "--lengths", metavar="NAMES", default="0k", help="comma list of context lengths: 0k,1k,...,1M (default: 0k)"
    )
    command.add_argument("--tasks", metavar="NAMES", help="comma list of tasks (default: qa1 to qa5)")
    command.add_argument(
        "--shots",
        metavar="N",
        type=_shots,
        help="examples in the prompt (default: all, as published); 0: no instruction either, the released zero-shot",
    )
    command.add_argument("--chat", action="store_true", help="put the prompt into the tokeniser's chat template")
    command.add_argument(
        "--samples", metavar="N", type=whole, help="of each task and length, 1000 at most (default: 100)"
    )
    command.add_argument(
        "--background",
        metavar="BOOKS",
        default="baseten",
        help="baseten (default), novels, gutenberg18, pg19 or synthetic",
    )
    command.add_argument("--out", metavar="FILE", help="the result file (default: in out/evaluate/babilong/)")
    command.add_argument(
        "--write", metavar="DIR", help="ask no model: write the samples there for lm-evaluation-harness"
    )


def _shots(text: str) -> int | None:
    if text == "":
        return None
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"a whole number from 0 up, not {text!r}")
    return int(text)


def evaluate(options: argparse.Namespace) -> int:
    """Answer or write, as the options say."""
    from rmtlib.data.babi import check_task
    from rmtlib.data.babilong_prompts import nominal_tokens, prompt_of

    tasks = list(dict.fromkeys((options.tasks or ",".join(TASKS)).split(",")))
    lengths = list(dict.fromkeys((options.lengths or "0k").split(",")))
    for task in tasks:
        check_task(task)
    for length in lengths:
        nominal_tokens(length)
    if options.write and options.model:
        raise RmtlibError("--write asks no model: leave out --model, or leave out --write")
    if options.write:
        return _write(options, tasks, lengths)
    if not options.model:
        raise RmtlibError("no model is named: give --model NAME, or --write DIR for the samples alone")
    for task in tasks:
        prompt_of(task).write("", "", options.shots)  # refuses too many examples before anything is loaded
    from rmtlib.runs.prompted import Prompting, as_table, evaluate

    settings = Prompting(
        options.model,
        options.tokenizer or None,
        options.shots,
        options.chat,
        options.samples or 100,
        background=options.background or "baseten",
    )
    out = Path(options.out) if options.out else None
    content, path = evaluate(settings, tasks, lengths, out=out, progress=lambda line: print(line, file=sys.stderr))
    if options.json:
        print_json(content)
    else:
        print_table(as_table(content, tasks, lengths))
        print(f"per cent of {settings.samples} samples at most; {path}")
    return 0


def _write(options: argparse.Namespace, tasks: list[str], lengths: list[str]) -> int:
    from rmtlib.data.babilong_texts import HUB_NAME, open_texts, write_folder

    texts = {task: open_texts(task, background=options.background or "baseten") for task in tasks}
    folder = Path(options.write) / HUB_NAME
    written = write_folder(folder, texts, lengths, options.samples or 100)
    if options.json:
        print_json({"folder": str(folder), "samples": written})
        return 0
    for length, counts in written.items():
        print(f"{length}: " + ", ".join(f"{n} of {task}" for task, n in counts.items()))
    print(f"{folder}: load_dataset(folder, name={lengths[0]!r}, split={tasks[0]!r})")
    print(f"lm-evaluation-harness reads it in {options.write}, where its task finds the name {HUB_NAME}:")
    chosen = ",".join(f"babilong_{task}" for task in tasks)
    metadata = json.dumps({"max_seq_lengths": lengths[-1]})
    print(f"  cd {options.write} && lm_eval --model hf --model_args pretrained=NAME --tasks {chosen} "
          f"--metadata '{metadata}'")  # fmt: skip
    print("  and for a model with memory: python -m rmtlib.evaluation.harness run --model rmt ... (book/running.md)")
    return 0
