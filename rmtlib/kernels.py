"""Kernels that are forked from a process which has imported what notebooks import: each starts at once.

An artifact's notebook that trains nothing spends half its time in imports. A kernel from here runs the same
code as ipykernel_launcher does, in a process and a session of its own, and is stopped and interrupted like any other.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from typing import Any

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

IMPORTED = (  # none starts a thread: a forked process would lack it
    "torch._dynamo",  # what the first step of an optimizer imports
    "transformers",
    "scipy.stats",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",  # not pyplot: it chooses its backend, which needs the kernel
    "ipykernel.kernelapp",
    "rmtlib.experiments.view",
)
NAME = "rmtlib-forked"
INLINE = "module://matplotlib_inline.backend_inline"


def fork_kernels() -> None:
    """From now on this process forks every kernel that it starts."""
    os.environ.setdefault("MPLBACKEND", INLINE)  # read when matplotlib is imported, and ipykernel comes later
    get_context("forkserver").set_forkserver_preload(list(IMPORTED))
    ours = EntryPoint(NAME, f"{__name__}:ForkedProvisioner", KernelProvisionerFactory.GROUP_NAME)
    KernelProvisionerFactory.provisioners[NAME] = ours
    KernelProvisionerFactory.instance().default_provisioner_name = NAME


class ForkedProvisioner(LocalProvisioner):
    """Starts a kernel as a child of this process's fork server, with the arguments that its command would have."""

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        folder = options.get("cwd") or os.getcwd()
        process = get_context("forkserver").Process(target=_run, args=(arguments, options["env"], folder))
        process.start()
        started = _Started(process)
        self.process, self.pid = started, started.pid  # type: ignore[assignment]
        self.pgid = started.pid  # of its own session: what a cell has started gets the kernel's signals, too
        return self.connection_info


def _run(arguments: Sequence[str], env: Mapping[str, str], folder: str) -> None:
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()  # Ctrl-C is for the process that watches the kernel, which hands it on
    os.chdir(folder)
    os.environ.update(env, JPY_PARENT_PID=str(os.getppid()))  # the kernel ends with the fork server
    IPKernelApp.launch_instance(argv=list(arguments))


class _Started:
    """A process with the methods of `subprocess.Popen` that jupyter_client calls."""

    stdin = stdout = stderr = None

    def __init__(self, process: ForkServerProcess) -> None:
        self.process, self.pid = process, process.pid or 0

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)
