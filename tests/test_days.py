"""README, "Running for days": its commands are commands, and they do at smoke scale what is said of them."""

import re
import shlex
from pathlib import Path

import pytest

from rmtlib.cli import _parser, main
from rmtlib.experiments.registry import get_artifact


def commands(root: Path, page: str) -> list[list[str]]:
    """What stands behind `.venv/bin/rmtlib` in the section's code."""
    section = re.search(r"^## Run(?:ning)? for days\n(.*?)^## ", (root / page).read_text(), re.S | re.M)
    assert section
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", section[1], re.S | re.M))
    lines = re.findall(r"(?:^|until )\.venv/bin/rmtlib ([^#;\n]*)", blocks, re.M)
    return [shlex.split(line) for line in lines]


def test_the_command_that_shares_tests_at_smoke(root, tmp_path, monkeypatch):
    """It is out of time at once; tests/test_shards.py lets it train."""
    monkeypatch.chdir(tmp_path)
    (words,) = [words for words in commands(root, "README.md") if "--shards" in words]
    changed = {"medium": "smoke", "figure-5": "memory-capacity"}
    assert main([*[changed.get(word, word) for word in words], "--time-budget", "0.01"]) == 75


@pytest.mark.parametrize("page", ["README.md", "book/running.md"])
def test_the_commands_are_commands(root, page):
    found = commands(root, page)
    assert {"queue", "run"} == {words[0] for words in found} and len(found) >= 4
    assert {"--devices", "--executor", "--time-budget"} <= {word for words in found for word in words}
    for words in found:
        _parser().parse_args(words)


def test_the_slurm_command_at_smoke(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (words,) = [words for words in commands(root, "README.md") if "slurm" in words]
    assert main([word if word != "medium" else "smoke" for word in words]) == 0
    said = capsys.readouterr().out
    script = next(Path("runs/memory-capacity").glob("slurm-smoke-*.sh"))
    assert f"sbatch {script}" in said and "#SBATCH --time=240" in script.read_text()
    assert len(list(Path("runs/memory-capacity").glob("*/config.json"))) == 4


def test_the_queue_command_at_smoke(root, tmp_path, monkeypatch, capsys):
    """It is out of time at once, which is a stop; CI lets it train."""
    monkeypatch.chdir(tmp_path)
    words = next(words for words in commands(root, "README.md") if words[0] == "queue")
    changed = {"medium": "smoke", "28800": "0.01", "figure-5": "memory-capacity"}
    assert main([changed.get(word, word) for word in words]) == 75
    runs = len(get_artifact("memory-capacity").rows_at("smoke"))
    done = capsys.readouterr()
    first, second, *_ = done.out.splitlines()
    assert f"{runs} left" in first and second.startswith("left: memory-capacity armt-remember")
    assert f"time budget of 0.01 s used: 0 of {runs} runs finished" in done.err


def test_ci_trains_from_the_queue_and_tries_to_break_it(root):
    ci = (root / ".ci/run").read_text()
    assert "rmtlib.cli queue memory-capacity --scale smoke" in ci and "\nmake stress STRESS_ARGS=" in ci
    assert "`make stress`" in (root / "README.md").read_text()
