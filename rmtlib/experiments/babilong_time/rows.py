"""The rows of babilong-time: which model reads how many samples at once, and the paper's minutes."""

from collections.abc import Mapping

from rmtlib.runs.spec import Row

MODELS: Mapping[str, str] = {
    "rmt": "RMT",
    "armt-loop": "ARMT, segment after segment",
    "armt-wavefront": "ARMT as a wavefront",
    "mamba": "Mamba",
}
WAYS: Mapping[str, str] = {
    "": "one sample at a time",
    "-batch": "several samples at once",
    "-long": "one sample at a time, up to the scale's longest contexts",
}
LENGTHS: Mapping[str, int] = {"4k": 4 * 1024, "32k": 32 * 1024, "128k": 128 * 1024, "1M": 1024**2}
MINUTES: Mapping[str, float] = {"4k": 4, "32k": 30, "128k": 80, "1M": 315}
"""BABILong, Table 3: RMT on GPT-2, 1,000 samples on one A100 with 80 GB, with the processing of their data."""
PAPER_SAMPLES = 1000


def split(row: str) -> tuple[str, str]:
    """A row's model and way to read: ("armt-loop", "-batch")."""
    way = next((way for way in ("-batch", "-long") if row.endswith(way)), "")
    return row.removesuffix(way), way


def name_of(row: str) -> str:
    """A row in words: RMT in batches."""
    model, way = split(row)
    return MODELS[model] + {"-batch": " in batches", "-long": " up to its longest context"}.get(way, "")


def _row(model: str, way: str) -> Row:
    told = model == "rmt" and not way
    source = "BABILong (Kuratov et al. 2024), Table 3: minutes for 1,000 samples" if told else "not in the paper"
    return Row(model + way, f"{MODELS[model]}, {WAYS[way]}", None, dict(MINUTES) if told else {}, source)


ROWS = tuple(_row(model, way) for way in WAYS for model in MODELS)
