"""The rows of memory-capacity: which models, on which tasks, and what the paper says of each."""

from rmtlib.runs.spec import Row

MODELS = {
    "armt": "ARMT",
    "rmt": "RMT",
    "prmt": "PRMT",
    "mamba": "Mamba",
    "armt-released": "ARMT, update as in the released code",
    "armt-nogamma": "ARMT without gamma correction",
    "armt-attached": "ARMT with gradients through gamma",
    "armt-fixed": "ARMT, always the most pairs in training",
    "armt-dpfp-1": "ARMT with DPFP-1 and as many features",
    "armt-equal": "ARMT with a state as large as Mamba's",
    "rmt-equal": "RMT with a state as large as Mamba's",
}
LARGE = {
    "armt-large": "ARMT of 4 layers of 128, state nearly as large as Mamba's, keys of two symbols",
    "mamba-large": "Mamba of 4 layers of 128, keys of two symbols",
}
LABELS = MODELS | LARGE
VALUES = 16  # of one symbol
FIGURES = {"remember": "Figure 2a", "rewrite": "Figure 2b", "armt-nogamma": "Figure 4a", "prmt": "Figure 4b"}
SAID = {  # the paper prints no numbers
    "armt-remember": "stores the most pairs; best capacity of the three (Table 2)",
    "mamba-remember": "stores more than RMT, fewer than ARMT",
    "rmt-remember": "stores the fewest pairs",
    "prmt-remember": "does not improve on RMT",
    "armt-rewrite": "perfect recall on over 10 times the trained updates",
    "rmt-rewrite": "degrades slightly beyond the trained updates",
    "mamba-rewrite": "degrades slightly beyond the trained updates",
    "armt-nogamma-rewrite": "struggles to extrapolate to more updates than trained",
}


def _row(model: str, task: str, scales: tuple[str, ...] = ()) -> Row:
    name = f"{model}-{task}"
    source = f"ARMT (Rodkin et al. 2024), {FIGURES.get(model, FIGURES[task])}" if name in SAID else "not in the paper"
    return Row(name, f"{LABELS[model]}, {task}", task, {"said": SAID[name]} if name in SAID else {}, source, scales)


ROWS = (
    *(_row(model, "remember") for model in MODELS),
    *(_row(model, "remember", ("medium",)) for model in LARGE),  # at gpu and paper all models have this size
    *(_row(model, "rewrite") for model in MODELS),
)
