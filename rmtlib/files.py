"""Files that are either whole or as they were."""

import os
from pathlib import Path

from rmtlib.errors import RmtlibError


def write_atomically(path: Path, content: bytes) -> None:
    """Write, fsync and rename; on failure the partial file is removed and an older `path` stays as it was."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RmtlibError(
            f"{path}: cannot write ({error.strerror}); what was there before is kept. Free some space and run the "
            "same command again"
        ) from error
