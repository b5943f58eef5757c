"""Small JSON files that are whole or absent, their digests, and one lock per run folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rmtlib.errors import RmtlibError
from rmtlib.files import unwritable, write_atomically


def to_jsonable(value: Any) -> Any:
    """`value` as JSON knows it: mappings as dicts with text keys, tuples as lists, numpy scalars as numbers.

    Raises:
        TypeError: a value that JSON has no form for.
    """
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(getattr(value, "item", None)):  # a numpy or torch scalar
        return to_jsonable(value.item())
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def finite(value: Any) -> tuple[Any, int]:
    """`value` with NaN and infinities replaced by None (JSON has neither), and how many there were."""
    if isinstance(value, dict):
        parts = {key: finite(item) for key, item in value.items()}
        return {key: item for key, (item, _) in parts.items()}, sum(count for _, count in parts.values())
    if isinstance(value, list):
        items = [finite(item) for item in value]
        return [item for item, _ in items], sum(count for _, count in items)
    if isinstance(value, float) and not math.isfinite(value):
        return None, 1
    return value, 0


def canonical(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces. ValueError if a number is not finite."""
    return json.dumps(to_jsonable(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_sha256(value: Any) -> str:
    """sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write `value` so that `path` holds the old or the new text, whole, whatever happens meanwhile.

    `durable=False` leaves out the fsync, for files that only show progress.

    Raises:
        RmtlibError: the disk is full or the folder cannot be written; the old file is still there.
    """
    text = json.dumps(to_jsonable(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text.encode(), durable=durable)


def read_json(path: Path, kind: type[dict] | type[list], remedy: str) -> Any:
    """What the file holds, a dict or a list as asked.

    Raises:
        RmtlibError: the file is not readable JSON of that kind; the message ends with `remedy`.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RmtlibError(f"cannot read {path} ({error.strerror or error}): {remedy}") from error
    except (ValueError, RecursionError) as error:  # bad or very deep JSON, or bytes that are not UTF-8
        raise RmtlibError(f"{path} is damaged ({str(error).splitlines()[0]}): {remedy}") from error
    if not isinstance(value, kind):
        raise RmtlibError(f"{path} is damaged (no JSON {'object' if kind is dict else 'list'}): {remedy}")
    return value


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write an intermediate result, with a checksum of it, for `read_sealed`."""
    value, _ = finite(to_jsonable(value))
    write_json(path, value | {"sha256": json_sha256(value)})


def check_seal(path: Path, value: Mapping[str, Any], remedy: str) -> None:
    """Raises RmtlibError if "sha256" is not the checksum of the rest of what `path` holds."""
    try:
        whole = value.get("sha256") == json_sha256({name: part for name, part in value.items() if name != "sha256"})
    except ValueError:  # a number is not finite
        whole = False
    if not whole:
        raise RmtlibError(f"{path} was changed after it was written (its checksum does not match): {remedy}")


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """What `write_sealed` wrote; nothing if there is no file, or one of earlier code, which had no checksum.

    Raises:
        RmtlibError: the file was damaged or changed; the message ends with `remedy`.
    """
    if not path.exists():
        return {}
    value: dict[str, Any] = read_json(path, dict, remedy)
    if value.get("sha256") is None:
        return {}
    check_seal(path, value, remedy)
    del value["sha256"]
    return value


class Lock:
    """The right to train one run folder, held by an open file description.

    A worker inherits `fd`, so the folder stays locked for as long as the command or its worker lives, and is
    free when both are gone, however they ended.
    """

    def __init__(
        self,
        folder: Path,
        what: str,
        *,
        patience: float = 60.0,
        waiting: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Lock `folder`, or say who holds it.

        If the command that held it is dead (killed) and only its worker is left, that worker is about to
        stop: wait for it up to `patience` seconds, after one call of `waiting` with a line that says so.

        Raises:
            RmtlibError: another command is training this run.
        """
        import fcntl

        self.path = folder / "lock"
        self.fd = -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise unwritable(self.path, error) from error
        deadline = time.monotonic() + patience
        told = False
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    holder = _holder(self.path)
                    orphan = holder["host"] == socket.gethostname() and not _alive(holder["pid"])
                    if not orphan or time.monotonic() > deadline:
                        raise RmtlibError(_held(what, holder, orphan)) from None
                    if not told:
                        waiting(f"{what}: waiting for the worker of a killed command to write its checkpoint")
                        told = True
                    time.sleep(0.2)
            self.fd = fd
            self.tell(None)
        except OSError as error:
            os.close(fd)
            raise RmtlibError(f"cannot lock {self.path} ({error.strerror or error}): use a local disk") from error
        except BaseException:
            os.close(fd)
            raise

    def tell(self, worker: int | None) -> None:
        """Write who holds the lock, for the error that others get."""
        text = json.dumps({"pid": os.getpid(), "worker": worker, "host": socket.gethostname()})
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, text.encode(), 0)

    def release(self) -> None:
        """Let go of this process's share; never unlocks what a worker still holds."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def is_locked(folder: Path) -> bool:
    """Whether some process trains the run in `folder` now."""
    import fcntl

    try:
        fd = os.open(folder / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _holder(path: Path) -> dict[str, Any]:
    try:
        holder = json.loads(path.read_text())
        return {"pid": int(holder["pid"]), "worker": holder["worker"], "host": str(holder["host"])}
    except (OSError, ValueError, KeyError, TypeError):  # between flock and tell
        return {"pid": os.getpid(), "worker": None, "host": socket.gethostname()}


def _held(what: str, holder: dict[str, Any], orphan: bool) -> str:
    pid = holder["worker"] if orphan and holder["worker"] else holder["pid"]
    where = "" if holder["host"] == socket.gethostname() else f" on {holder['host']}"
    advice = "wait for it, or stop it with" if not orphan else "its command was killed; stop it with"
    return f"{what} is being trained by process {pid}{where}: {advice} `kill {pid}`, then call this again"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
