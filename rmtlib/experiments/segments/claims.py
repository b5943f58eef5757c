"""The claims of the ARMT paper on language modelling, as contrasts of bits per byte on the segments of a text."""

from rmtlib.evaluation.decisions import Contrast, Rule
from rmtlib.experiments.declare import primary
from rmtlib.experiments.segments.rules import RULES
from rmtlib.report.claims import Claim, below

GATE = "the backbone has fewer bits per byte than counting three tokens"
SIMILAR = "ARMT performs similarly to RMT on the language modeling task, despite its larger theoretical capacity."

CLAIMS = (
    primary(
        "lm-segments",
        "alike",
        SIMILAR,
        "ARMT, Figure 6 and appendix G",
        "On the segments of training with a history (2 to 8), each of ARMT and RMT has at least half of what the other "
        f"gains over the backbone. Gate: {GATE}.",
        RULES["alike"],
    ),
    primary(
        "lm-segments",
        "memory-helps",
        "The memory of RMT carries language from segment to segment.",
        "taken for granted in ARMT, Figure 6",
        f"On segments 2 to 8 RMT has fewer bits per byte than the backbone that reads one segment at a time. "
        f"Gate: {GATE}.",
        RULES["memory-helps"],
    ),
    primary(
        "lm-segments",
        "no-better-beyond",
        "Trained on 8 segments, the models struggle to extrapolate on longer sequences.",
        "ARMT, appendix K, and Figure 6",
        "Of ARMT and of RMT: segments 9 to 15 gain over segment 8 less than a tenth of what segment 8 gains over "
        f"segment 1. Gates: {GATE}; segment 8 gains something.",
        RULES["no-better-beyond"],
    ),
    Claim(
        "each-segment",
        SIMILAR,
        "ARMT, Figure 6",
        "Bits per byte of ARMT less RMT's on each of the segments 2 to 8; the paper has the two curves on each other.",
        below(*((f"armt: segment {s}", f"rmt: segment {s}") for s in range(2, 9))),
    ),
    Claim(
        "armt-helps",
        "The memory of ARMT carries language from segment to segment.",
        "taken for granted in ARMT, Figure 6",
        "On segments 2 to 8: ARMT less the backbone.",
        below(("armt: within", "backbone: within")),
    ),
    Claim(
        "memory-is-read",
        "What a model has stored is what helps it, not the room for it.",
        "not in the paper",
        "Of RMT and of ARMT, on segments 2 to 8: with its own memory less with it emptied, and less with the memory of "
        "another place of the text.",
        below(*((f"{row}: within", f"{row}: {other}") for row in ("rmt", "armt") for other in ("off", "swapped"))),
    ),
    Claim(
        "last-segment-only",
        "ARMT tends to keep in memory only the last segment.",
        "ARMT, appendix K",
        "What segments 3 to 8 gain over segment 2, less what segment 2 gains over segment 1.",
        below(("armt: gain of the others", "armt: gain of the first")),
    ),
    Claim(
        "no-match-for-attention",
        "It is still challenging to train ARMT to solve the language modeling task well.",
        "ARMT, appendix K",
        "On segments 2 to 8: the backbone that reads eight segments at once, less ARMT and less RMT.",
        Rule(tuple(Contrast({"backbone-window: within": 1, f"{row}: within": -1}) for row in ("armt", "rmt"))),
    ),
)
