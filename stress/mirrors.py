"""Mirrors that lie: on loopback, with drawn answers and archives; what they cost is measured."""

import errno
import os
import random
import resource
import shutil
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from stress.trials import Trial

from hostile import ANSWERS, ARCHIVES, CONTENT, Server, answer, endless  # isort: skip
from rmtlib.data import mirrors, sources
from rmtlib.data.mirrors import Archive, Member, Url
from rmtlib.data.sources import SOURCES, Source
from rmtlib.errors import RmtlibError

MOST_BYTES = 20_000_000
"""No file may become larger: twenty times the file that is asked for, a third of what the bombs unpack to."""
MOST_SECONDS = 30.0


def hostile_mirrors(draw: random.Random, scratch: Path) -> Iterator[Trial]:
    """A mirror sends an endless, slow, cut or wrong body, malformed headers, redirects without end, archives that are
    broken, linked or bombs; the next mirror is asked, or one line says why there is none."""
    for name in ("RMTLIB_DATA", "RMTLIB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        os.environ.pop(name, None)
    mirrors.STALL_SECONDS = mirrors.ANSWER_SECONDS = 0.5  # of a minute and half a minute
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, resource.RLIM_INFINITY))
    server = Server()
    server.files["/right"] = CONTENT
    try:
        while True:
            os.environ["RMTLIB_CACHE"] = str(scratch / "cache")
            what, member = _draw(draw, server)
            alone = draw.random() < 0.3
            yield Trial(what + ", alone" * alone, _fetch(server, scratch / "cache", member, alone))
            shutil.rmtree(scratch / "cache", ignore_errors=True)
    finally:
        server.server.shutdown()
        server.server.server_close()


def _draw(draw: random.Random, server: Server) -> tuple[str, str | None]:
    """Have the server answer wrongly at /hostile: what it does, and the member's name if it sends an archive."""
    server.files.pop("/hostile", None)
    server.hostile.clear()
    server.cut.clear()
    kind = draw.choice(("answer", "archive", "flipped", "cut", "length", "endless", "header", "status"))
    if kind == "answer":
        which = draw.randrange(len(ANSWERS))
        server.hostile["/hostile"] = ANSWERS[which][0]
        return f"answer {which}: {ANSWERS[which][1]}", None
    if kind == "archive":
        which = draw.randrange(len(ARCHIVES))
        packed = bytearray(ARCHIVES[which][0]())
        if damaged := draw.random() < 0.5:  # any byte of it, on top of what it is
            packed[draw.randrange(len(packed))] ^= 1 << draw.randrange(8)
        server.files["/hostile"] = bytes(packed)
        return f"archive {which}{' with a flipped bit' * damaged}", "one.gz" if b"one.gz" in packed else "one"
    content = bytearray(CONTENT)
    if kind == "flipped":
        at = draw.randrange(len(content))
        content[at] ^= 1 << draw.randrange(8)
        server.files["/hostile"] = bytes(content)
        return f"bit flipped in byte {at}", None
    if kind == "cut":
        server.files["/hostile"] = CONTENT
        server.cut["/hostile"] = [draw.randrange(len(CONTENT)) for _ in range(draw.randint(1, 9))]
        return f"connection cut {len(server.cut['/hostile'])} times", None
    if kind == "length":
        length = draw.choice((0, 1, -1, 10**30, "0x10", "1,000", "", "٣", draw.randrange(2 * len(CONTENT))))
        text = str(length).encode("utf-8").decode("latin1")
        server.hostile["/hostile"] = answer(f"Content-Length: {text}", body=CONTENT)
        return f"Content-Length {length!a}", None
    if kind == "endless":
        piece = bytes([draw.randrange(256)]) * draw.choice((1, 100, 1 << 16))
        server.hostile["/hostile"] = endless(pause=draw.choice((0.0, 0.01)), piece=piece)
        return f"endless body in pieces of {len(piece)}", None
    if kind == "header":
        raw = bytes(draw.randrange(256) for _ in range(draw.randint(1, 200)))
        server.hostile["/hostile"] = lambda out: out.write(b"HTTP/1.0 200 OK\r\n" + raw + b"\r\n\r\n" + CONTENT)
        return f"{len(raw)} random bytes for headers", None
    status = f"{draw.randint(100, 999)} {'x' * draw.randint(0, 70000)}"
    server.hostile["/hostile"] = answer(f"Location: http://127.0.0.1:{draw.randint(0, 70000)}/", status=status)
    return f"status {status[:3]} with {len(status) - 4} letters", None


def _fetch(server: Server, cache: Path, member: str | None, alone: bool) -> str | None:
    """Fetch the file; what is wrong with how that ended."""
    mirrors._unreachable.clear()
    sources._checked.clear()
    url = server.url("/hostile")
    hostile: Any = Member(Archive("all", url), member) if member else url
    right = Url(server.url("/right").url.replace("127.0.0.1", "localhost"))  # another host, which is not given up
    given = (hostile,) if alone else (hostile, right)
    SOURCES["thing"] = Source(
        "thing", "things/thing.bin", len(CONTENT), "CC0", given, sha256=sha256(CONTENT).hexdigest()
    )
    began = time.monotonic()
    lost = None
    try:
        if sources.fetch("thing", progress=False).read_bytes() != CONTENT:
            lost = "a wrong file was accepted"
    except RmtlibError as error:
        lost = None if alone else f"the next mirror was not asked: {error}"
        if "\n" in str(error) or not str(error).isprintable():
            lost = f"the error is no line of text: {str(error)[:200]!r}"
    except OSError as error:
        too_large = error.errno == errno.EFBIG
        lost = f"a file grew beyond {MOST_BYTES:,} bytes" if too_large else f"{type(error).__name__}: {error}"
    except Exception as error:
        lost = f"{type(error).__name__}: {error}"
    if (seconds := time.monotonic() - began) > MOST_SECONDS:
        lost = lost or f"it took {seconds:.0f} s"
    held = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    if held > 3 * len(CONTENT):
        lost = lost or f"{held:,} bytes were left in the cache"
    return lost
