"""Files that are either whole or as they were, and the one line that is said if one cannot be written."""

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rmtlib.errors import RmtlibError


def sync(file: IO[Any]) -> None:
    """Have what was written reach the disk."""
    file.flush()
    os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write so that `path` holds the old or the new content, whole, whatever happens meanwhile.

    `durable=False` leaves out the fsync, for files that can be done without after a crash.

    Raises:
        RmtlibError: the disk is full or the folder cannot be written; the old file is still there.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            if durable:
                sync(file)
        os.replace(partial, path)
        if durable:
            sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def sync_folder(folder: Path) -> None:
    """Have the names in a folder reach the disk: without it a power cut may take a renamed file back."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError, remedy: str = "fix that, then the same command continues") -> RmtlibError:
    """The one-line error for a file that could not be written; `remedy` is for all but a full disk."""
    if is_full(error):
        return RmtlibError(f"the disk is full: cannot write {path}; free some space, then the same command continues")
    return RmtlibError(f"cannot write {path} ({error.strerror or error}); {remedy}")


def is_full(error: BaseException) -> bool:
    """Whether an exception, or what caused it, says that the disk or the quota is full."""
    return _is(error, errno.ENOSPC, errno.EDQUOT)


def is_too_large(error: BaseException) -> bool:
    """Whether an exception, or what caused it, says that a file would have grown beyond `largest_file`."""
    return _is(error, errno.EFBIG)


def _is(error: BaseException, *numbers: int) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in numbers:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


@contextlib.contextmanager
def largest_file(most: int) -> Iterator[None]:
    """No thread of this process can make a file larger than `most` bytes while this is open: writing on is an OSError.

    For what others' code writes, e.g. a client that believes its server.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limits = [limit for limit in before if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_FSIZE, (min([most, *limits]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
