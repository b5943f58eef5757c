"""A web server on this machine, and what hostile mirrors and archives send; for tests and for `make stress`."""

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from typing import Any

from rmtlib.data.mirrors import Url

CONTENT = bytes(range(256)) * 4000  # 1 MB


class Server:
    """A web server on this machine: `files` by path; `cut` of a path closes its next replies after so many bytes.

    What `hostile` has for a path writes the whole answer itself. `headers` are sent with every file.
    """

    def __init__(self, **headers: str) -> None:
        self.files: dict[str, bytes] = {}
        self.hostile: dict[str, Callable[[Any], None]] = {}
        self.cut: dict[str, list[int]] = {}
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:  # honest, as the announcement of a hostile file may be
                content = outer.files.get(self.path)
                if content is None:
                    return self.send_error(404)
                self.announce(200, content, len(content))

            def announce(self, status: int, content: bytes, length: int) -> None:
                self.send_response(status)
                self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
                self.send_header("Content-Length", str(length))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()

            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                outer.requests.append((self.path, asked))
                if self.path in outer.hostile:
                    with contextlib.suppress(OSError):  # hung up on
                        outer.hostile[self.path](self.wfile)
                    self.close_connection = True
                    return None
                content = outer.files.get(self.path)
                if content is None:
                    return self.send_error(404)
                tag = f'"{hashlib.md5(content).hexdigest()}"'
                start = 0
                if asked and self.headers.get("If-Range", tag) == tag:
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                    if start >= len(content):
                        return self.send_error(416)
                self.announce(206 if start else 200, content, len(content) - start)
                cuts = outer.cut.get(self.path)
                self.wfile.write(content[start : start + cuts.pop(0)] if cuts else content[start:])

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str) -> Url:
        return Url(f"http://127.0.0.1:{self.server.server_address[1]}{path}")


def answer(*headers: str, status: str = "200 OK", body: bytes = b"") -> Callable[[Any], None]:
    text = "\r\n".join([f"HTTP/1.0 {status}", *headers, "", ""]).encode("latin1")
    return lambda out: out.write(text + body)


def endless(
    *headers: str, pause: float = 0.0, piece: bytes = b"x" * (1 << 16), pieces: int = 2000
) -> Callable[[Any], None]:
    def write(out: Any) -> None:
        answer(*headers)(out)
        for _ in range(pieces):
            out.write(piece)
            out.flush()
            time.sleep(pause)

    return write


def endless_headers(out: Any) -> None:
    out.write(b"HTTP/1.0 200 OK\r\nX: ")
    for _ in range(600):
        out.write(b"a")
        out.flush()
        time.sleep(0.05)


def tarball(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return raw.getvalue()


def linked(kind: bytes, target: str) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        info = tarfile.TarInfo("one")
        info.type, info.linkname = kind, target
        archive.addfile(info)
    return raw.getvalue()


def xz(content: bytes) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:xz") as archive:
        info = tarfile.TarInfo("one")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def encrypted(content: bytes) -> bytes:
    """A zip whose member is marked as encrypted, in its local and its central header."""
    packed = bytearray(zipped({"one": content}))
    packed[6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    return bytes(packed)


def odd_method(content: bytes) -> bytes:
    packed = bytearray(zipped({"one": content}))
    packed[8] = packed[packed.index(b"PK\x01\x02") + 10] = 97
    return bytes(packed)


BOMB = b"\0" * 60_000_000

ANSWERS = [
    (endless(), "sends more than the file's 1,024,000 bytes"),
    (endless("Content-Length: 1024000"), "wrong checksum"),
    (endless("Content-Length: 99999999999"), "announces 99,999,999,999 bytes for a file of 1,024,000"),
    (endless("Content-Length: -5"), "malformed Content-Length"),
    (answer("Content-Length: 1e9", body=CONTENT), "malformed Content-Length"),
    (answer("Content-Length: \xb2", body=CONTENT), "malformed Content-Length"),
    (endless(pause=0.05, piece=b"x"), "stalled: fewer than"),
    (endless("Content-Length: 1024000", pause=0.05, piece=b"x"), "stalled: fewer than"),
    (endless_headers, "no answer within"),
    (answer("Location: http://[::1", status="302 Found"), "malformed answer"),
    (answer("Location: http://127.0.0.1:port/", status="302 Found"), "malformed"),
    (answer("Location: http://127.0.0.1:99999/", status="302 Found"), "not from there"),
    (answer("Location: file:///etc/passwd", status="302 Found"), "HTTP 302"),
    (answer("Location: /hostile", status="302 Found"), "HTTP 302"),  # where it is asked for: for ever
    (answer("Location: http://" + "a" * 300 + "/", status="302 Found"), "malformed answer"),
    (answer("Location: http://a..b/", status="302 Found"), "malformed answer"),
    (answer(status="999 \x1b[31mred"), "HTTP 999"),
    (lambda out: out.write(b"\xff" * 100), "malformed"),
    (lambda out: out.write(b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"), "malformed"),
]
"""What a mirror may answer instead of `CONTENT`, and a part of the reason that is then given."""

ARCHIVES = [
    (lambda: xz(CONTENT)[:-9000] + b"?" * 9000, "not a readable archive"),
    (lambda: xz(os.urandom(100_000))[:50_000], "not a readable archive"),
    (lambda: linked(tarfile.SYMTYPE, "one"), "one is not a file"),
    (lambda: linked(tarfile.LNKTYPE, "one"), "one is not a file"),
    (lambda: linked(tarfile.SYMTYPE, "/etc/passwd"), "one is not a file"),
    (lambda: linked(tarfile.FIFOTYPE, ""), "one is not a file"),
    (lambda: encrypted(CONTENT), "not a readable archive"),
    (lambda: odd_method(CONTENT), "not a readable archive"),
    (lambda: tarball({"one": BOMB}), "unpacks to more than the file's 1,024,000 bytes"),
    (lambda: zipped({"one": BOMB}), "unpacks to more than the file's 1,024,000 bytes"),
    (lambda: zipped({"one.gz": gzip.compress(BOMB)}), "unpacks to more than the file's 1,024,000 bytes"),
]
"""What it may send instead of an archive with a file `one` of `CONTENT`, and a part of the reason."""
