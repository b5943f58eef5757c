"""The rows of the LoRA study: what each trains, by which protocol, and what the study prints of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rmtlib.runs.spec import Row

SOURCE = "Gopalan et al., RMT for Context Length Extension"
ZERO_SHOT = 29.94  # GPT-2 in Table 1
TABLE_1 = {2: 24.29, 4: 25.89, 6: 25.67}  # segments -> validation perplexity
TABLE_2 = {2: 17.37, 4: 17.86, 8: 17.40, 16: 17.99, 32: 18.05, 64: 19.18}  # memory tokens -> validation perplexity
TABLE_2_SEGMENTS = 5  # an input of 4,096 tokens in segments of 1024 - 2 m

Memory = Literal["none", "rmt", "armt"]


@dataclass(frozen=True)
class Study:
    """A row: a model, how it is tuned, and the protocol.

    A memory with one segment is not passed on: its vectors are trained as a prefix alone. Several segments without a
    memory are read at once, with full attention.
    `published`: trained and evaluated as the study's scripts do, else by the controlled protocol.
    """

    tuning: Literal["", "lora", "full"]
    memory: Memory = "none"
    segments: int = 1
    tokens: int = 0  # of memory
    published: bool = False
    printed: float | None = None
    table: str = ""

    @property
    def name(self) -> str:
        """backbone, lora, lora-window-2seg, lora-rmt-2seg-4mem, published-full-rmt-5seg-32mem."""
        if not self.tuning:
            return "backbone"
        if self.memory == "none" and self.segments > 1:
            return f"{self.tuning}-window-{self.segments}seg"
        size = f"-{self.memory}-{self.segments}seg-{self.tokens}mem" if self.memory != "none" else ""
        return f"{'published-' * self.published}{self.tuning}{size}"

    @property
    def label(self) -> str:
        """The row in words."""
        if not self.tuning:
            return "backbone, zero-shot"
        how = {"lora": "LoRA", "full": "full tuning"}[self.tuning]
        if self.memory == "none":
            return f"{how}, no memory{f', {self.segments} segments at once' * (self.segments > 1)}"
        if self.segments == 1:
            return f"{how}, {self.tokens} memory tokens that are not passed on"
        what = f"{self.memory.upper()}, {self.segments} segments, {self.tokens} memory tokens"
        return f"{how}, {what}{', as published' * self.published}"


def _rows() -> tuple[Study, ...]:
    controlled = [
        Study("", printed=ZERO_SHOT, table="Table 1"),
        Study("lora"),
        Study("lora", segments=2),
        Study("full"),
    ]
    controlled += [Study("lora", "rmt", segments, 4) for segments in (1, 2, 4, 6, 8)]
    controlled += [Study("lora", "rmt", 2, memory) for memory in (2, 8, 16, 32, 64)]
    controlled += [Study("lora", "armt", 2, 4), Study("full", "rmt", 2, 4)]
    published = [
        Study("lora", "rmt", n, 4, True, TABLE_1.get(n), "Table 1" if n in TABLE_1 else "") for n in (2, 4, 6, 8)
    ]
    published += [
        Study(how, "rmt", TABLE_2_SEGMENTS, m, True, value if how == "full" else None, "Table 2" * (how == "full"))
        for how in ("full", "lora")
        for m, value in TABLE_2.items()
    ]
    return (*controlled, *published)


STUDY: Mapping[str, Study] = {row.name: row for row in _rows()}


def _row(study: Study) -> Row:
    paper: dict[str, Any] = {} if study.printed is None else {"mean": study.printed}
    source = f"{SOURCE}, {study.table}" if study.table else "not in the study"
    return Row(study.name, study.label, None, paper, source)


ROWS = tuple(_row(study) for study in STUDY.values())
