"""The trials that the settings of the scale medium were chosen from, with a seed of no result."""

from dataclasses import replace

from rmtlib.experiments.algorithmic.rows import task_row
from rmtlib.experiments.algorithmic.scales import PAIRS, SOLVED, SYMBOLS, Recipe, medium
from rmtlib.runs.spec import PILOT, RunConfig, Trial
from rmtlib.settings import to_params

SEED = 100
GROWING = Recipe(
    lengths=(1 / 6, 1 / 3, 1 / 2, 2 / 3, 1.0),
    steps=(1500, 1000, 1000, 1000, 1500),
    enough=(0.99, 0.99, 0.99, 0.99, SOLVED),
    lr=5e-4,
    model=dict(dropout=0.0, init_std=0.05),
    train=dict(
        batch_size=32, evaluate_every=250, weight_decay=0.0, beta2=0.98, clip_norm=0.25, continued=True, horizon=1e6,
        patience=10_000, log_every=50, warmup=1 / 3, precision="bf16",
    ),
)  # fmt: skip


KEPT = replace(SYMBOLS, growing=True)  # COPY without its last stage
STEADY = replace(  # one rate to the end
    PAIRS,
    lengths=(0.5, 1.0, 1.0, 1.0, 1.0),
    steps=(1000, 400, 1000, 1000, 3000),
    enough=(0.99, 0.99, 0.99, 0.99, SOLVED),
    end=1.0,
)
SHOWN = replace(STEADY, lengths=(0.5, 1.0, 0.5, 0.75, 1.0), segments=(1, 1), drills=3, drill="pairs")


def _trial(name: str, row: str, note: str, recipe: Recipe) -> Trial:
    params = medium(task_row("algorithmic", row), SEED, recipe)
    params = replace(params, test_samples=256)
    return Trial(f"{row}-{name}", note, RunConfig("algorithmic", row, PILOT, SEED, to_params(params)))


LENGTHS = "length curriculum of 4, 8, 12, 16, 24 symbols"
EVEN = "length curriculum of 4, 8, ... 24 symbols, validated every 50 steps"
DRILLED = "drills of 2 and 4 pairs in one segment and of 2 in all, then 3 and 4 pairs"
LETTERS = "drills that show no digit twice: 2 and 4 pairs in one segment, 4 in two and in all"
KEEP = "segments at most as long as the row's, so that their number grows"

TRIALS = (
    _trial("growing", "copy-3-rmt-24", f"{LENGTHS}; stopped at chance with 24", GROWING),
    _trial("paced", "copy-3-rmt-24", EVEN, SYMBOLS),
    _trial("paced", "reverse-2-rmt-24", EVEN, SYMBOLS),
    _trial("drilled", "retrieval-2-rmt-5", DRILLED, SHOWN),
    _trial("drilled", "retrieval-2-trxl-5", DRILLED, SHOWN),
    _trial("drilled", "retrieval-3-rmt-3", f"{DRILLED}; stopped: 0.3 of the answers about 3 pairs right", SHOWN),
    _trial("drilled", "retrieval-3-trxl-3", f"{DRILLED}; stopped: 0.6 of the answers about 4 pairs right", SHOWN),
    _trial("letters", "retrieval-3-rmt-3", LETTERS, STEADY),
    _trial("falling", "retrieval-3-rmt-3", f"{LETTERS}; a quarter of the rate at the end", PAIRS),
    _trial("falling", "retrieval-2-rmt-5", f"{LETTERS}; a quarter of the rate at the end", PAIRS),
    _trial("falling", "retrieval-3-trxl-3", f"{LETTERS}; a quarter of the rate at the end", PAIRS),
    _trial("kept", "copy-9-rmt-8", f"{EVEN}; {KEEP}", KEPT),
    _trial("kept", "reverse-4-trxl-12", f"{EVEN}; {KEEP}", KEPT),
    _trial("kept", "reverse-4-rmt-12", f"{EVEN}; {KEEP}", KEPT),
    _trial("kept", "copy-9-trxl-8", f"{EVEN}; {KEEP}", KEPT),
    _trial("paced", "reverse-2-trxl-24", EVEN, SYMBOLS),
    _trial("paced", "copy-3-trxl-24", EVEN, SYMBOLS),
    _trial("paced", "copy-6-rmt-12", EVEN, SYMBOLS),
    _trial("paced", "reverse-4-rmt-12", EVEN, SYMBOLS),
)
