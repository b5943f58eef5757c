"""A hub that sends more than it may: what its client writes is bounded, and the rest is one line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import CONTENT, Server, endless
from test_decoder import hf_model

COMMIT = "1" * 40
LOAD = """
import json, sys
from rmtlib.errors import RmtlibError
from rmtlib.models import backbones
try:
    decoder, note = backbones.load_backbone("some/model")
    print(json.dumps([note["revision"], sum(x.abs().sum().item() for x in decoder.parameters())]))
except RmtlibError as error:
    sys.exit(f"error: {error}")
"""
FETCH = """
import sys
from hashlib import sha256
from hostile import CONTENT
from rmtlib.data import sources
from rmtlib.data.mirrors import Hub
from rmtlib.errors import RmtlibError
mirror = Hub("some/data", "folder/thing.bin")
known = sources.Source("thing", "thing.bin", len(CONTENT), "CC0", (mirror,), sha256=sha256(CONTENT).hexdigest())
sources.SOURCES["thing"] = known
try:
    sources.fetch("thing", progress=False)
except RmtlibError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def hub():
    """A hub with a tiny GPT-2 and a file of data."""
    started = Server(X_Repo_Commit=COMMIT)
    started.files["/"] = b"a hub"
    started.files["/some/data/resolve/main/folder/thing.bin"] = CONTENT
    yield started
    started.server.shutdown()
    started.server.server_close()


def serve(hub: Server, folder: Path) -> float:
    """Have the hub offer a tiny model; the sum of its weights."""
    model = hf_model("gpt2")
    model.save_pretrained(folder)
    for path in folder.iterdir():
        for revision in ("main", COMMIT):
            hub.files[f"/some/model/resolve/{revision}/{path.name}"] = path.read_bytes()
    return sum(x.abs().sum().item() for x in model.parameters())


def ask(hub: Server, home: Path, script: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A process of its own in the folder `home`, as the hub's client reads its settings when it is imported."""
    home.mkdir(exist_ok=True)
    tests = Path(__file__).parent
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "RMTLIB_"))}
    environment |= {
        "HF_ENDPOINT": hub.url("").url,
        "HF_HOME": str(home / "hf"),
        "RMTLIB_CACHE": str(home / "cache"),
        "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)]),
        "no_proxy": "127.0.0.1",
        **settings,
    }
    return subprocess.run(
        [sys.executable, "-c", script], cwd=home, env=environment, capture_output=True, text=True, timeout=240
    )


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_a_pretrained_model_comes_from_the_hub_and_an_endless_one_does_not(hub, tmp_path):
    total = serve(hub, tmp_path / "model")
    done = ask(hub, tmp_path / "honest", LOAD)
    assert done.returncode == 0, done.stderr
    revision, weights = json.loads(done.stdout.splitlines()[-1])
    assert revision == COMMIT and weights == pytest.approx(total)
    for revision in ("main", COMMIT):  # the client believes the length that was announced, and reads on
        hub.hostile[f"/some/model/resolve/{revision}/model.safetensors"] = endless()
    done = ask(hub, tmp_path / "endless", LOAD)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and "the hub sends more than the 67," in line and "Traceback" not in done.stderr
    assert bytes_below(tmp_path / "endless") < 1_000_000  # nothing of it is kept


def test_an_endless_config_is_bounded_too(hub, tmp_path):
    serve(hub, tmp_path / "model")
    for revision in ("main", COMMIT):
        hub.hostile[f"/some/model/resolve/{revision}/config.json"] = endless(pieces=6000)
    done = ask(hub, tmp_path / "endless", LOAD)
    assert done.returncode == 1 and "the hub sends more than the 268,435,456 bytes" in done.stderr
    assert bytes_below(tmp_path / "endless") < 1_000_000


def test_a_data_file_comes_from_the_hub_and_is_bounded_by_its_size(hub, tmp_path):
    done = ask(hub, tmp_path / "honest", FETCH)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "honest" / "cache" / "thing.bin").read_bytes() == CONTENT
    hub.hostile["/some/data/resolve/main/folder/thing.bin"] = endless()
    done = ask(hub, tmp_path / "endless", FETCH)
    assert done.returncode == 1 and "hub some/data/folder/thing.bin: brings more than 1,286,144 bytes" in done.stderr
    assert bytes_below(tmp_path / "endless") < 1_000_000


def test_a_hub_that_sends_a_byte_at_a_time_is_given_up(hub, tmp_path):
    hub.hostile["/some/data/resolve/main/folder/thing.bin"] = endless(pause=0.1, piece=b"x")
    done = ask(hub, tmp_path / "slow", "from rmtlib.data import mirrors\nmirrors.CLIENT_SECONDS = 5\n" + FETCH)
    assert done.returncode == 1 and "hub some/data/folder/thing.bin: not done after 5 seconds" in done.stderr


STUB = """
import os
class constants:
    HF_HUB_OFFLINE, ENDPOINT = False, os.environ["HF_ENDPOINT"]
def hf_hub_download(repo, file, *, repo_type, local_dir, etag_timeout):
    if not os.path.exists("here"):
        raise RuntimeError("404 Client Error\\n\\nFor more details, see the manual")
    os.makedirs(os.path.dirname(os.path.join(local_dir, file)))
    with open("here", "rb") as here, open(os.path.join(local_dir, file), "wb") as there:
        there.write(here.read())
"""


def test_the_client_has_the_modules_and_the_folder_of_the_process_that_asks(hub, tmp_path):
    """Also if they are relative, as the cache may be; and what it says first is the reason."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "huggingface_hub.py").write_text(STUB)
    script = "import sys\nsys.path.insert(0, 'modules')\n" + FETCH
    done = ask(hub, tmp_path, script, RMTLIB_CACHE="cache")
    assert done.returncode == 1 and "hub some/data/folder/thing.bin: 404 Client Error. Put" in done.stderr
    (tmp_path / "here").write_bytes(CONTENT)
    done = ask(hub, tmp_path, script, RMTLIB_CACHE="cache")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cache" / "thing.bin").read_bytes() == CONTENT
    assert list((tmp_path / "cache" / "incoming").iterdir()) == []


def test_a_client_that_nobody_watches_is_bounded_too(hub, tmp_path):
    asked = (
        "from rmtlib.data.hub_client import bring\n"
        "bring('some/data', 'folder/thing.bin', 'model', 'got', most=1000, connect=5.0, seconds={})"
    )
    hub.hostile["/some/data/resolve/main/folder/thing.bin"] = endless()
    done = ask(hub, tmp_path, asked.format(60))
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "brings more than 1,000 bytes"
    hub.hostile["/some/data/resolve/main/folder/thing.bin"] = endless(pause=0.1, piece=b"x")
    assert ask(hub, tmp_path, asked.format(3)).returncode == -signal.SIGALRM
