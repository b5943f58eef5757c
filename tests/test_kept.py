"""Executed notebooks that are kept: used again byte for byte, and only if nothing that they depend on has changed."""

import os
import time
from contextlib import nullcontext

import nbformat
import pytest

from rmtlib import kept
from rmtlib.book import executing
from rmtlib.kept import Job
from rmtlib.notebooks import execute


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a package, records, and a notebook, here just Python, that writes that it was executed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(kept, "execute", execute_text)
    for path, text in (("package/data/a.py", "1"), ("package/b.json", "{}"), ("results/toy/a.json", "1")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "toy.ipynb").write_text("open('executed', 'a').write('x')")
    return tmp_path


def execute_text(source, target, pairs, *, quiet):
    exec(source.read_text())
    target.parent.mkdir(exist_ok=True)
    target.write_text(f"executed: {time.time_ns()}")


def job(project, pairs=(("A", "2"),), reads=("results/toy/*.json",)):
    return Job(project / "toy.ipynb", project / "out" / "toy.ipynb", pairs, reads)


def build(project, **options):
    """The bytes of the executed notebook, and how many times it has been executed until now."""
    this = job(project, **options)
    this.target.unlink(missing_ok=True)
    with executing([this]):
        pass
    return this.target.read_bytes(), (project / "executed").stat().st_size


def kept_files(project):
    return sorted((project / "cache" / "notebooks").glob("*"))


def test_a_notebook_is_executed_once_and_then_the_same_to_the_byte(project):
    first = build(project)
    assert build(project) == first and first[1] == 1
    (path,) = kept_files(project)
    for damaged in (path.read_bytes()[:-1], path.read_bytes().replace(b"executed", b"executes"), b""):
        path.write_bytes(damaged)
        again = build(project)
        assert again != first and build(project) == again
    assert again[1] == 4


def test_what_a_kernel_has_shown_is_kept(project, monkeypatch):
    monkeypatch.setattr(kept, "execute", execute)
    tagged = nbformat.v4.new_code_cell("A: int = 1", metadata={"tags": ["parameters"]})
    cell = nbformat.v4.new_code_cell("print(open('executed', 'a').write('x'))")
    nbformat.write(nbformat.v4.new_notebook(cells=[tagged, cell]), project / "toy.ipynb")
    first = build(project, pairs=())
    assert nbformat.reads(first[0].decode(), 4).cells[1].outputs[0].text == "1\n"
    assert build(project, pairs=()) == first and first[1] == 1


def test_a_notebook_that_reads_who_knows_what_is_executed_each_time(project):
    assert [build(project, reads=None)[1] for _ in range(2)] == [1, 2] and kept_files(project) == []


def changed(name, text):
    def change(project, monkeypatch):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)

    return change


CHANGES = {
    "record": changed("results/toy/a.json", "2"),
    "new record": changed("results/toy/b.json", "1"),
    "module": changed("package/data/a.py", "2"),
    "new module": changed("package/data/c.py", ""),
    "other file of the package": changed("package/b.json", "[]"),
    "notebook": changed("toy.ipynb", "1"),
    "threads": lambda _, monkeypatch: monkeypatch.setenv("OMP_NUM_THREADS", "7"),
    "allocator": lambda _, monkeypatch: monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:native"),
    "time zone": lambda _, monkeypatch: monkeypatch.setenv("TZ", "Asia/Tokyo"),
    "data": lambda _, monkeypatch: monkeypatch.setenv("RMTLIB_DATA", "/elsewhere"),
    "package": lambda _, monkeypatch: monkeypatch.setattr("importlib.metadata.distributions", lambda: ()),
    "processor": lambda _, monkeypatch: monkeypatch.setattr("rmtlib.runs.provenance._cpu", lambda: "another"),
    "folder": lambda project, monkeypatch: monkeypatch.chdir(project / "package"),
    "removed record": lambda project, _: (project / "results" / "toy" / "a.json").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_notebook_depends_on_has_another_key(project, monkeypatch, change):
    before = kept.key(job(project), kept.surroundings())
    assert kept.key(job(project), kept.surroundings()) == before
    change(project, monkeypatch)
    assert kept.key(job(project), kept.surroundings()) != before


def test_other_parameters_have_another_key_and_what_is_not_read_has_none(project):
    around = kept.surroundings()
    before = kept.key(job(project), around)
    for pairs in ((), (("A", "3"),), (("A", "2"), ("B", "2"))):
        assert kept.key(job(project, pairs), around) != before
    for name in ("results/other/a.json", "package/data/__pycache__/a.pyc", "README.md"):
        changed(name, "2")(project, None)
    assert kept.key(job(project), around) == before


def test_a_changed_record_executes_again_and_the_old_one_brings_the_old_pages_back(project):
    first = build(project)
    changed("results/toy/a.json", "2")(project, None)
    assert build(project)[1] == 2
    changed("results/toy/a.json", "1")(project, None)
    assert build(project) == (first[0], 2)


@pytest.mark.parametrize("more", ["1 / 0", "open('results/toy/a.json', 'a').write('1')"])
def test_nothing_is_kept_of_a_notebook_that_failed_or_whose_files_changed_meanwhile(project, more):
    with (project / "toy.ipynb").open("a") as file:
        file.write(f"\n{more}\n")
    with pytest.raises(ZeroDivisionError) if more == "1 / 0" else nullcontext():
        build(project)
    assert (project / "executed").read_text() == "x" and kept_files(project) == []


def test_what_another_build_writes_to_the_same_target_is_not_kept(project, monkeypatch):
    def execute_beside_another(source, target, pairs, *, quiet):
        execute_text(source, target, pairs, quiet=quiet)
        for name in ("toy.ipynb", "toy.partial.ipynb"):
            (target.parent / name).write_text("another's")

    monkeypatch.setattr(kept, "execute", execute_beside_another)
    first = build(project)
    assert first[0].startswith(b"executed") and build(project) == first
    assert {path.name for path in (project / "out").iterdir()} == {"toy.ipynb", "toy.partial.ipynb"}


def test_a_cache_that_cannot_be_written_keeps_nothing_and_stops_nothing(project):
    (project / "cache").write_text("no folder")
    assert [build(project)[1] for _ in range(2)] == [1, 2]


def test_a_system_without_affinities_builds_too(project, monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity")  # macOS
    assert build(project)[1] == 1


def test_the_newest_are_left(project, monkeypatch):
    monkeypatch.setattr(kept, "MOST", 2)
    kept.forget()  # there is no folder
    build(project)
    (used,) = kept_files(project)
    for age, name in enumerate(("old", "older"), start=1):
        (used.parent / name).write_text("")
        os.utime(used.parent / name, (1e9 - age, 1e9 - age))
    os.utime(used, (1, 1))
    assert build(project)[1] == 1  # which makes it a new one
    kept.forget()
    assert {path.name for path in kept_files(project)} == {used.name, "old"}
