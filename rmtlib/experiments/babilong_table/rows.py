"""The rows of the artifact babilong: every model on every task, with what the two papers print of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rmtlib.data.babi import TASKS
from rmtlib.experiments.babilong.rows import PAPER as RMT
from rmtlib.runs.spec import Row

MODELS = {
    "rmt": "RMT",
    "rmt-r": "RMT-R",
    "rmt-r-top-1": "RMT-R, best past memory alone",
    "armt": "ARMT",
    "prmt": "PRMT",
    "mamba": "Mamba",
    "rwkv": "RWKV-5",
    "full-attention": "backbone on the whole context",
    "full-attention-lora": "backbone on the whole context with LoRA",
    "window": "backbone on its window",
    "rag": "backbone on retrieved sentences",
    "rag-dense": "backbone on sentences found by mean-pooled states",
}
STAND_IN = "smollm2"
ON_SMOLLM2 = {model: f"{label} on SmolLM2" for model, label in MODELS.items() if model not in ("mamba", "rwkv")}
"""Models around a backbone: at the scale gpu SmolLM2 stands in for GPT-2 in rows "<model>-smollm2-<task>"."""
PRETRAINED = {"full-attention-lora": ("medium", "gpu", "paper")}
"""Models that only these scales have, as LoRA adapts what is pretrained; on qa1 alone, as in the paper."""
LENGTHS = ("0k", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "512k", "1M", "10M")
TABLE_4: Mapping[
    str, Mapping[str, Sequence[float]]
] = {  # BABILong paper, in per cent, mean of three runs; as far as a model could read
    "rmt": RMT,
    "armt": {
        "qa1": (100, 99, 100, 100, 100, 100, 100, 100, 100, 99, 99, 89),
        "qa2": (100, 97, 99, 100, 100, 100, 100, 100, 100, 99, 99, 84),
        "qa3": (97, 85, 91, 92, 92, 92, 91, 90, 86, 80, 72, 37),
        "qa4": (100, 99, 100, 100, 100, 100, 100, 100, 100, 100, 100, 92),
        "qa5": (100, 99, 99, 98, 98, 98, 98, 98, 97, 95, 93, 77),
    },
    "mamba": {
        "qa1": (100, 100, 100, 100, 100, 100, 100, 100, 100, 92),
        "qa2": (98, 98, 98, 98, 98, 98, 98, 95, 87),
        "qa3": (97, 97, 97, 97, 97, 96, 95, 92, 81),
        "qa4": (100, 100, 100, 100, 100, 100, 100, 100, 98),
        "qa5": (98, 99, 98, 99, 99, 99, 98, 99, 98),
    },
    "rag-llama": {  # Llama-3 ChatQA with retrieval: a column of the paper's alone
        "qa1": (60, 62, 60, 58, 58, 60, 60, 56, 64, 54, 55, 50),
        "qa2": (28, 25, 22, 19, 14, 13, 9, 7, 6, 6, 2, 2),
        "qa3": (17, 18, 17, 17, 16, 17, 15, 13, 19, 17, 10, 11),
        "qa4": (53, 58, 56, 59, 57, 60, 60, 59, 60, 59, 54, 56),
        "qa5": (80, 77, 78, 77, 78, 77, 78, 76, 75, 75, 76, 67),
    },
}
ARMT_LENGTHS = ("64k", "128k", "500k", "1M", "10M", "50M")
ARMT_TABLE_1: Mapping[
    str, Mapping[str, Sequence[float]]
] = {  # ARMT paper, in per cent; means of two runs of Mamba and three of ARMT, not said of the others
    "rmt": {
        "qa1": (99.6, 99.1, 96.4, 94.2, 76.4),
        "qa2": (72.7, 56.3, 32.0, 25.5, 16.2),
        "qa3": (51.9, 42.9, 25.9, 24.8, 21.0),
        "qa4": (51.2, 40.0, 29.4, 27.3, 17.2),
        "qa5": (88.5, 78.1, 56.4, 48.0, 27.3),
    },
    "rmt-r": {
        "qa1": (99.7, 99.5, 97.5, 97.4, 86.0),
        "qa2": (71.6, 54.9, 31.8, 26.3, 13.0),
        "qa3": (52.9, 41.9, 25.5, 22.2, 16.4),
        "qa4": (58.8, 50.1, 32.1, 26.0, 14.0),
        "qa5": (86.2, 77.4, 55.9, 49.9, 35.0),
    },
    "mamba": {
        "qa1": (100.0, 99.5, 92.3),
        "qa2": (95.0, 86.7),
        "qa3": (91.8, 81.4),
        "qa4": (99.7, 97.6),
        "qa5": (98.7, 97.5),
    },
    "armt": {
        "qa1": (100.0, 99.9, 99.3, 98.5, 89.4, 49.6),
        "qa2": (100.0, 99.8, 99.4, 99.4, 84.4),
        "qa3": (90.4, 86.0, 79.7, 72.1, 37.0),
        "qa4": (100.0, 100.0, 99.9, 99.8, 91.5),
        "qa5": (99.0, 98.7, 98.4, 97.3, 80.9),
    },
}


def _row(model: str, task: str) -> Row:
    values: dict[str, float] = {}
    sources = []
    if model in TABLE_4:
        values |= dict(zip(LENGTHS, TABLE_4[model][task], strict=False))
        sources.append("BABILong (Kuratov et al. 2024), Table 4")
    elif model in ARMT_TABLE_1:
        values |= dict(zip(ARMT_LENGTHS, ARMT_TABLE_1[model][task], strict=False))
        sources.append("ARMT (Rodkin et al. 2024), Table 1")
    paper = {length: round(value / 100, 4) for length, value in values.items()}
    if model in PRETRAINED:
        sources.append("BABILong (Kuratov et al. 2024), section 3.3 and Figure 9: other samples and another scorer")
    source = "; ".join(sources) or "not in the papers"
    return Row(f"{model}-{task}", f"{MODELS[model]}, {task}", task, paper, source, PRETRAINED.get(model, ()))


def _stand_in(model: str, task: str) -> Row:
    label = f"{ON_SMOLLM2[model]}, {task}"
    return Row(f"{model}-{STAND_IN}-{task}", label, task, {}, "not in the papers", ("gpu",), stands_in=True)


def _models(task: str, models: Iterable[str]) -> Iterator[str]:
    return (model for model in models if task == "qa1" or model not in PRETRAINED)


ROWS = (
    *(_row(model, task) for task in TASKS for model in _models(task, MODELS)),
    *(_stand_in(model, task) for task in TASKS for model in _models(task, ON_SMOLLM2)),
)
