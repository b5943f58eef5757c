"""The artifacts of the package: one line each, and no other list of them anywhere."""

from rmtlib.errors import RmtlibError
from rmtlib.runs.artifact import Artifact, load_artifact

ARTIFACTS: dict[str, str] = {
    "figure-5": "rmtlib.experiments.babilong.artifact:Figure5",
    "babilong": "rmtlib.experiments.babilong_table.artifact:BABILongTable",
    "babilong-time": "rmtlib.experiments.babilong_time.artifact:BABILongTime",
    "enwik8": "rmtlib.experiments.language_modelling.artifact:Enwik8",
    "wikitext-103": "rmtlib.experiments.language_modelling.artifact:WikiText103",
    "lora-wikitext-2": "rmtlib.experiments.lora.artifact:LoRAWikiText2",
    "lm-segments": "rmtlib.experiments.segments.artifact:LMSegments",
    "memory-capacity": "rmtlib.experiments.capacity.artifact:MemoryCapacity",
    "quadratic": "rmtlib.experiments.quadratic.artifact:Quadratic",
    "algorithmic": "rmtlib.experiments.algorithmic.artifact:Algorithmic",
    "algorithmic-long": "rmtlib.experiments.algorithmic.artifact:AlgorithmicLong",
    "attention-maps": "rmtlib.experiments.attention.artifact:AttentionMaps",
}
"""Name -> "module:class". A module is imported when its artifact is asked for."""


def get_artifact(name: str) -> Artifact:
    """The artifact called `name`, e.g. "figure-5". Raises RmtlibError naming the known ones."""
    if name not in ARTIFACTS:
        raise RmtlibError(f"unknown artifact {name!r}: use one of {', '.join(ARTIFACTS)}")
    return load_artifact(ARTIFACTS[name])


def all_artifacts() -> dict[str, Artifact]:
    """Every artifact by its name, in the order of the registry."""
    return {name: get_artifact(name) for name in ARTIFACTS}
