"""The claims of the RMT paper on the algorithmic tasks, as contrasts of per-token accuracy.

Most say in this project's words what the paper's figure and the authors' runs show.
"""

from rmtlib.evaluation.decisions import Contrast, Rule
from rmtlib.experiments.algorithmic.rows import LONG, SHORT, TaskRow
from rmtlib.experiments.algorithmic.rules import RULES
from rmtlib.experiments.declare import primary
from rmtlib.report.claims import Claim, below

CHANCE_AND_MORE = 0.15  # of 0.1 by guessing
SOLVED = 0.95


def _at_most(limit: float, *rows: str) -> Rule:
    return Rule(tuple(Contrast({row: 1}, limit=limit) for row in rows))


def _at_least(limit: float, *rows: str) -> Rule:
    return Rule(tuple(Contrast({row: -1}, limit=-limit) for row in rows))


def _names(rows: tuple[TaskRow, ...], *models: str, task: str = "", segments: tuple[int, ...] = ()) -> tuple[str, ...]:
    return tuple(
        row.name
        for row in rows
        if row.model in models and not row.variant and (not task or row.task == task) and row.segments in segments
    )


MANY = (3, 4, 6, 9)

SHORT_CLAIMS = (
    primary(
        "algorithmic",
        "copy-gap-grows",
        "Copy: RMT solves the task in nine segments, where Transformer-XL of equal memory falls far below it.",
        "RMT, Figure 3, copy",
        "Tr-XL's accuracy less RMT's is negative at nine segments, and lower there than at three. Gates: at three "
        "segments RMT above 0.9, Tr-XL above twice chance.",
        RULES["algorithmic"]["copy-gap-grows"],
    ),
    primary(
        "algorithmic",
        "reverse-rmt-above",
        "Reverse: RMT is above Transformer-XL of equal memory.",
        "RMT, Figure 3, reverse",
        "In four segments with memory 12, Tr-XL's accuracy less RMT's is negative. Gate: Tr-XL above twice chance.",
        RULES["algorithmic"]["reverse-rmt-above"],
    ),
    primary(
        "algorithmic",
        "half-memory-suffices",
        "Half of the memory is enough for RMT on reverse in four segments (Tr-XL with half was not run).",
        "RMT, appendix A.1, Figure 2",
        "Reverse in four segments: with memory 6 instead of 12 RMT loses less accuracy than Tr-XL loses in the "
        "authors' runs. Gate: RMT above 0.9 with memory 12.",
        RULES["algorithmic"]["half-memory-suffices"],
    ),
    Claim(
        "one-segment",
        "All tasks are solved in one segment without any memory.",
        "RMT, Figure 3",
        "The baseline's accuracy in one segment, with a minus.",
        _at_least(SOLVED, *_names(SHORT, "baseline", segments=(1,))),
    ),
    Claim(
        "memory-needed",
        "Without recurrence a model stays at chance beyond one segment, also with memory tokens.",
        "RMT, Figure 3",
        "Accuracy of baseline and MT on copy and reverse less half as much again as chance.",
        _at_most(
            CHANCE_AND_MORE,
            *_names(SHORT, "baseline", "mt", task="copy", segments=MANY),
            *_names(SHORT, "baseline", "mt", task="reverse", segments=(2, 4, 6)),
        ),
    ),
    Claim(
        "reverse-at-every-count",
        "Reverse: RMT is above Transformer-XL of equal memory at every number of segments.",
        "RMT, Figure 3, reverse",
        "Tr-XL's accuracy less RMT's in two and in six segments.",
        below(("reverse-2-trxl-24", "reverse-2-rmt-24"), ("reverse-6-trxl-8", "reverse-6-rmt-8")),
    ),
    Claim(
        "half-memory-copy",
        "RMT solves the tasks almost perfectly with limited memory unlike Tr-XL.",
        "RMT, appendix A.1, Figure 2",
        "With memory of half a segment: Tr-XL's accuracy less RMT's, on copy in three and six, on reverse in two and "
        "four segments.",
        below(
            ("copy-3-trxl-12", "copy-3-rmt-12"),
            ("copy-6-trxl-6", "copy-6-rmt-6"),
            ("reverse-2-trxl-12", "reverse-2-rmt-12"),
            ("reverse-4-trxl-6", "reverse-4-rmt-6"),
        ),
    ),
    Claim(
        "retrieval-in-two",
        "Associative retrieval in two segments is solved by RMT and by Transformer-XL.",
        "RMT, Figure 3, and the authors' runs",
        "RMT's and Tr-XL's accuracy, with a minus.",
        _at_least(SOLVED, "retrieval-2-rmt-5", "retrieval-2-trxl-5"),
    ),
    Claim(
        "retrieval-without-memory",
        "Without memory at most half of the answers are right in two segments.",
        "by arithmetic, and the authors' runs",
        "The baseline's accuracy: the second segment holds one whole pair and one value.",
        _at_most(0.52, "retrieval-2-baseline"),
    ),
    Claim(
        "retrieval-in-five",
        "Associative retrieval in five segments: Transformer-XL is above RMT.",
        "RMT, section 5 and Figure 3, and the authors' runs",
        "RMT's accuracy less Tr-XL's.",
        below(("retrieval-5-rmt-2", "retrieval-5-trxl-2")),
    ),
    Claim(
        "retrieval-in-three",
        "Associative retrieval in three segments: RMT is above Transformer-XL.",
        "RMT, Figure 3, and the authors' runs (which call them 4)",
        "Tr-XL's accuracy less RMT's.",
        below(("retrieval-3-trxl-3", "retrieval-3-rmt-3")),
    ),
    Claim(
        "no-gradient-between-segments",
        "RMT does not pass gradients between segments in this experiment.",
        "RMT, caption of Figure 3; the released code does pass them",
        "Two-sided: accuracy with a memory detached between segments, less with full backpropagation through time.",
        below(("reverse-2-rmt-24-detached", "reverse-2-rmt-24"), ("copy-3-rmt-24-detached", "copy-3-rmt-24")),
    ),
    Claim(
        "carried-cache",
        "A cache that is not reset between training samples does no harm.",
        "taken for granted by the released code",
        "Two-sided: Tr-XL's accuracy with a carried cache, less with one that is reset.",
        below(("reverse-2-trxl-24-carried", "reverse-2-trxl-24"), ("copy-3-trxl-24-carried", "copy-3-trxl-24")),
    ),
)

LONG_CLAIMS = (
    primary(
        "algorithmic-long",
        "copy-rmt-above",
        "Copy of 120 symbols in nine segments: RMT solves it, Transformer-XL of equal memory does not.",
        "RMT, appendix A.1 and the authors' runs",
        "Tr-XL's accuracy less RMT's, with memory 40. Gate: RMT above 0.2.",
        RULES["algorithmic-long"]["copy-rmt-above"],
    ),
    primary(
        "algorithmic-long",
        "reverse-rmt-above",
        "RMT solves the tasks almost perfectly with limited memory unlike Tr-XL.",
        "RMT, appendix A.1, Figure 2c",
        "Reverse of 120 symbols in four segments, memory 60: Tr-XL's accuracy less RMT's. Gate: Tr-XL above 0.2.",
        RULES["algorithmic-long"]["reverse-rmt-above"],
    ),
    Claim(
        "degrades-beyond-720",
        "RMT starts to gradually degrade only after the length of 720 tokens.",
        "RMT, section 5, Figure 4",
        "Copy: RMT's accuracy at 360 tokens with a minus, and from 720 to 1080 tokens what it loses, with a minus.",
        Rule(
            (
                Contrast({"copy120-3-rmt-60": -1}, limit=-SOLVED),
                Contrast({"copy360-9-rmt-60": 1, "copy240-6-rmt-60": -1}),
            )
        ),
    ),
    Claim(
        "copy-needs-memory",
        "Copy of 120 symbols: without recurrence a model stays at chance.",
        "RMT, appendix A.1 and the authors' runs",
        "The baseline's accuracy in three segments less half as much again as chance.",
        _at_most(1.5 / 8, "copy120-3-baseline"),
    ),
    Claim(
        "copy-trxl-fails",
        "Copy of 240 symbols and more: Transformer-XL stays at chance.",
        "RMT, appendix A.1 and the authors' runs",
        "Tr-XL's accuracy less half as much again as chance.",
        _at_most(1.5 / 8, *(row.name for row in LONG if row.model == "trxl" and row.size > 120)),
    ),
)

CLAIMS = {"algorithmic": SHORT_CLAIMS, "algorithmic-long": LONG_CLAIMS}
