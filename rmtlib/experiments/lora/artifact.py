"""LoRA on WikiText-2 (Gopalan et al.): RMT around a pretrained model, by the study's protocol and by a controlled one.

One row per model and protocol, one run per row and seed: tune, then read the test text in several ways, among them
with no memory and with another text's memory.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from statistics import mean
from typing import TYPE_CHECKING, Any

from rmtlib.errors import RmtlibError
from rmtlib.experiments.lora.rows import ROWS, STUDY
from rmtlib.experiments.lora.scales import settings
from rmtlib.experiments.lora.settings import Params, cost
from rmtlib.runs.artifact import Artifact
from rmtlib.runs.backbones import GPT2, SMOLLM2, at_hand, fetch_gpt2_or_other
from rmtlib.runs.cost import pretraining_cost
from rmtlib.runs.spec import SCALES, Cost, Once, Result, RunConfig
from rmtlib.settings import from_dict, to_params
from rmtlib.training.pretrain_config import PretrainConfig

if TYPE_CHECKING:
    from rmtlib.report.report import Report
    from rmtlib.runs.folder import RunFolder

DECIDING = ("lora", "lora-rmt-1seg-4mem", "lora-rmt-2seg-4mem")
BASE = (
    *("backbone", "lora", "lora-window-2seg", "full"),
    *("lora-rmt-1seg-4mem", "lora-rmt-2seg-4mem", "lora-rmt-4seg-4mem"),
)


class LoRAWikiText2(Artifact):
    """The LoRA study, Tables 1 and 2, Figures 1 and 2."""

    name = "lora-wikitext-2"
    title = "LoRA and RMT on WikiText-2"
    settings_note = "A published row's segment is what the context leaves beside two memory blocks."
    scales = SCALES
    rows = ROWS

    @property
    def typical_row(self) -> str:
        return "lora-rmt-2seg-4mem"

    def default_rows(self, scale: str) -> tuple[str, ...]:
        if scale in ("gpu", "paper"):
            return tuple(STUDY)
        if scale == "medium":
            return (*BASE, "lora-rmt-2seg-32mem", "lora-armt-2seg-4mem")
        memories = tuple(f"lora-rmt-2seg-{memory}mem" for memory in (16, 32))
        return (*BASE, *memories, "lora-armt-2seg-4mem", "published-lora-rmt-2seg-4mem")

    def default_seeds(self, scale: str) -> int:
        return {"smoke": 1, "medium": 1, "gpu": 1}.get(scale, 3)

    def seeds_of(self, row: str, scale: str) -> int:
        """At medium three of the rows that decide whether memory helps (book/protocol.md)."""
        return 3 if scale == "medium" and row in DECIDING else self.default_seeds(scale)

    def prepare(self, scale: str, rows: Sequence[str]) -> None:
        """Fetch the texts and weights, and tokenise, so that runs that start together do not."""
        if scale == "smoke":
            return
        from rmtlib.experiments.lora.run import open_texts

        if scale == "gpu":
            fetch_gpt2_or_other()
        with suppress(RmtlibError):  # the run itself says what is missing
            for row in rows:
                open_texts(from_dict(Params, self.config(row, scale, 0).params))

    def config(self, row: str, scale: str, seed: int) -> RunConfig:
        """The complete config. The scale gpu tunes SmolLM2 if that is on this machine and GPT-2 is not."""
        other = scale == "gpu" and at_hand() == SMOLLM2
        params = settings(row, scale, seed, SMOLLM2 if other else None)
        return RunConfig(self.name, row, scale, params.seed, to_params(params))

    def remarks(self, scale: str) -> list[str]:
        if scale != "gpu" or (there := at_hand()) == GPT2:
            return []
        tuned = "SmolLM2, which is here, is tuned" if there else "SmolLM2 is tuned"
        return [f"GPT-2's weights are not here: a run asks the hub; if they cannot be had, {tuned}, as other runs"]

    def with_all_files(self, row: str, scale: str, seed: int) -> RunConfig:
        params = settings(row, scale, seed)
        return RunConfig(self.name, row, scale, params.seed, to_params(params))

    def execute(self, config: RunConfig, folder: "RunFolder") -> Result:
        from rmtlib.experiments.lora.run import execute

        return execute(from_dict(Params, config.params), folder)

    def rehearsed(self, params: dict[str, Any]) -> dict[str, Any]:
        """As many windows in a batch as fill one chunk."""
        tuning = params["tuning"]
        if tuning and tuning["labels"] == "all":
            params["tuning"] = tuning | {
                "train": tuning["train"] | {"batch_size": tuning["chunk"] // tuning["segments"]}
            }
        return params

    def cost(self, config: RunConfig) -> Cost:
        return cost(from_dict(Params, config.params))

    def once(self, config: RunConfig) -> Once | None:
        """The small decoder of all rows and seeds, if the scale has one."""
        backbone = from_dict(Params, config.params).backbone
        if not isinstance(backbone, PretrainConfig):
            return None
        return Once("the small decoder", backbone.key, pretraining_cost(backbone), backbone.is_kept)

    def check_metrics(self, metrics: Mapping[str, Any], curves: Mapping[str, Any], config: RunConfig) -> str | None:
        from rmtlib.experiments.lora.checks import check

        return check(metrics, curves, from_dict(Params, config.params))

    def summary(self, records: list[dict[str, Any]]) -> list[str]:
        """A line for each scale and row: bits per byte of the test text, and with another window's memory."""
        lines = []
        for scale in SCALES:
            for row in STUDY.values():
                runs = [r["metrics"]["readings"] for r in records if (r["row"], r["scale"]) == (row.name, scale)]
                if not runs:
                    continue
                said = f"{mean(run['test']['bits_per_byte'] for run in runs):.4f} bits per byte"
                if "memory shuffled" in runs[0]:
                    said += f", {mean(r['memory shuffled']['bits_per_byte'] for r in runs):.4f} with shuffled memory"
                lines.append(f"{row.label}, {scale} scale: {said}, over {len(runs)} seed{'s' * (len(runs) > 1)}")
        return lines

    def report(self) -> "Report":
        from rmtlib.experiments.lora.report import report

        return report()
