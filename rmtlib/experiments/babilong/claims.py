"""The claims of the BABILong paper on Figure 5, as contrasts of exact match, task by task."""

from rmtlib.data.babi import TASKS
from rmtlib.evaluation.decisions import Contrast, Rule
from rmtlib.experiments.babilong.rules import BEYOND, RULES
from rmtlib.experiments.declare import primary
from rmtlib.report.claims import Claim, below

CLAIMS = (
    primary(
        "figure-5",
        "holds-beyond",
        "RMT shows consistent performance on longer sequences, up to 128k tokens, with only a marginal quality "
        "degradation.",
        "BABILong, section 3.3",
        f"qa1's exact match falls by less than 0.12, twice the paper's fall, from the training length to {BEYOND} "
        "times that length. Gate: more than 0.9 at the training length.",
        RULES["holds-beyond"],
    ),
    Claim(
        "declines",
        "Accuracy decreases as the context grows beyond the training length.",
        "BABILong, Figure 5",
        "Of each task: what it loses from the training length to the longest context, with a minus.",
        Rule(tuple(Contrast({f"{task}: fall to the longest": -1}) for task in TASKS)),
    ),
    Claim(
        "qa1-highest",
        "qa1 keeps the highest accuracy far beyond the training length.",
        "BABILong, Figure 5",
        f"Another task's exact match at {BEYOND} times its training length, less qa1's.",
        below(*((f"{task}: far", "qa1: far") for task in TASKS if task != "qa1")),
    ),
    Claim(
        "facts-steepen",
        "Tasks with more supporting facts decline more steeply.",
        "BABILong, Figure 5",
        "Least-squares slope of exact match per doubling of the context: of qa2 (two facts) and qa3 (three) less that "
        "of qa1 (one).",
        below(("qa2: slope", "qa1: slope"), ("qa3: slope", "qa1: slope")),
    ),
    Claim(
        "spread-grows",
        "Performance on context lengths exceeding those seen during training may vary across different runs.",
        "BABILong, appendix C",
        "How far a run is from the median over seeds (as in Levene's test), divided by the standard error that so many "
        "questions leave, so that lengths of different accuracy can be compared: at the training length less at "
        f"{BEYOND} times that length.",
        below(*((f"{task}: deviation trained", f"{task}: deviation far") for task in TASKS)),
    ),
)
