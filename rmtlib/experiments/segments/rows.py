"""The rows of lm-segments: which models read the text, and what the paper says of each."""

from rmtlib.runs.spec import Row

NGRAM = "ngram-3"
LABELS = {
    "backbone": "backbone, one segment at a time",
    "rmt": "RMT",
    "armt": "ARMT",
    "backbone-window": "backbone, eight segments at once",
    NGRAM: "counting three tokens",
}
SAID = {  # the paper's figure prints no numbers
    "rmt": "the same as ARMT on every segment",
    "armt": "similar to RMT despite a larger theoretical capacity; extrapolates poorly",
}

ROWS = tuple(
    Row(
        name,
        label,
        None,
        {"said": SAID[name]} if name in SAID else {},
        "ARMT (Rodkin et al. 2024), Figure 6 and appendices G and K" if name in SAID else "not in the paper",
    )
    for name, label in LABELS.items()
)
