"""Kernels that are forked show what kernels that are started show, and end like them."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from rmtlib.book import executing
from rmtlib.errors import RmtlibError
from rmtlib.kept import Job
from rmtlib.notebooks import execute

ROOT = Path(__file__).parent.parent
CELLS = (
    "import os, sys\nprint(__name__, os.getcwd(), os.getsid(0) == os.getpid(), sys.argv[0] != '')",
    "import torch\nweight = torch.nn.Parameter(torch.ones(2))\nweight.sum().backward()\n"
    "torch.optim.Adam([weight]).step()\nprint(weight.tolist(), torch.randn(3, generator=torch.Generator()).tolist())",
    "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
    "import subprocess\nprint(subprocess.run(['printenv', 'GIVEN'], capture_output=True, text=True).stdout)",
)


def notebook(path, *cells):
    tagged = nbformat.v4.new_code_cell("A: int = 1", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[tagged, *map(nbformat.v4.new_code_cell, cells)]), path)
    return path


def outputs(path):
    return [cell.outputs for cell in nbformat.read(path, 4).cells]


def test_a_forked_kernel_shows_what_a_started_one_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("GIVEN", "handed on")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    source = notebook(tmp_path / "a.ipynb", *CELLS)
    execute(source, tmp_path / "started.ipynb", quiet=True)
    with executing([Job(source, tmp_path / "forked.ipynb")]):
        pass
    shown = outputs(tmp_path / "forked.ipynb")
    assert shown == outputs(tmp_path / "started.ipynb")
    assert "image/png" in shown[3][0].data and "handed on" in shown[4][0].text


def test_two_notebooks_of_one_process_share_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})  # one process, so one fork server, for both
    first = notebook(tmp_path / "first.ipynb", "import torch\ntorch.mine = kept = 1")
    second = notebook(tmp_path / "second.ipynb", "import torch\nprint(hasattr(torch, 'mine'), 'kept' in globals())")
    with executing([Job(path, tmp_path / "out" / path.name) for path in (first, second)]):
        pass
    assert outputs(tmp_path / "out" / "second.ipynb")[1][0].text == "False False\n"


KILLED = """
from jupyter_client.manager import start_new_kernel
from rmtlib import kernels
kernels.IMPORTED = ("ipykernel.kernelapp",)
kernels.fork_kernels()
manager, client = start_new_kernel(kernel_name="python3")
client.execute("import subprocess; print(subprocess.Popen(['sleep', '300']).pid, file=open('pid', 'w'))", reply=True)
manager.shutdown_kernel(now=True)
"""


def test_what_a_cell_has_started_is_killed_with_the_kernel(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0
    status = Path("/proc", (tmp_path / "pid").read_text().strip(), "status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_forked_kernel_that_dies_is_said_to_have_died(tmp_path):
    source = notebook(tmp_path / "a.ipynb", "import os\nos._exit(1)")
    with pytest.raises(RmtlibError, match="its kernel died"):
        with executing([Job(source, tmp_path / "out.ipynb")]):
            pass
