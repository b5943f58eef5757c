"""The Hugging Face hub's client in a process of its own, which `mirrors.Hub` starts, watches and ends."""

import signal
import sys

from rmtlib.data.meter import first_line
from rmtlib.files import is_full, is_too_large, largest_file


def bring(repo: str, file: str, kind: str, folder: str, most: int, connect: float, seconds: int) -> None:
    """Have the client put a file of a repository into `folder`, of `most` bytes; a failure ends the process in a line.

    Args:
        connect: seconds for the first answer.
        seconds: after these the process ends: the one that watches it may have been killed.
    """
    signal.alarm(seconds)
    from huggingface_hub import hf_hub_download

    try:
        with largest_file(most):
            hf_hub_download(repo, file, repo_type=kind, local_dir=folder, etag_timeout=connect)
    except Exception as error:  # the client's HTTP library, and so its exceptions, differ between versions
        said = f"brings more than {most:,} bytes" if is_too_large(error) else first_line(error)
        sys.exit("No space left on device" if is_full(error) else said)
