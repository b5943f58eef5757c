"""The claims of the ARMT paper on language modelling, as contrasts of bits per byte on the segments of a text."""

from rmtlib.evaluation.decisions import Contrast, Rule
from rmtlib.experiments.declare import primary
from rmtlib.experiments.segments.rules import RULES
from rmtlib.report.claims import Claim, below

GATE = "the backbone has fewer bits per byte than counting three tokens"
WORTH = "memory is worth something at segment 8, compared with that of another place of the text"
SIMILAR = "ARMT performs similarly to RMT on the language modeling task."

CLAIMS = (
    primary(
        "lm-segments",
        "alike",
        SIMILAR,
        "ARMT, Figure 6 and appendix G",
        "On segments 2 to 8 ARMT and RMT differ by less than a fifth of what the backbone gains by reading eight "
        f"segments at once. Gates: {GATE}; RMT's {WORTH}.",
        RULES["alike"],
    ),
    primary(
        "lm-segments",
        "memory-helps",
        "The memory of RMT carries language from segment to segment.",
        "taken for granted in ARMT, Figure 6",
        "On segments 2 to 8 RMT has fewer bits per byte than the backbone that reads one segment at a time, and fewer "
        f"than with the memory of another place of the text. Gate: {GATE}.",
        RULES["memory-helps"],
    ),
    primary(
        "lm-segments",
        "no-better-beyond",
        "ARMT … struggles to extrapolate on longer sequences.",
        "ARMT, appendix K, and Figure 6",
        "Of ARMT, and of RMT, of which the paper does not say it: segments 9 to 15 gain over segment 8 less than a "
        f"tenth of what the model's memory is worth at segment 8. Gates: {GATE}; each model's {WORTH}.",
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
        "What its memory is worth, compared with that of another place: what segments 3 to 8 add to segment 2, less "
        "what it is worth at segment 2.",
        below(("armt: worth of more", "armt: worth of one")),
    ),
    Claim(
        "no-match-for-attention",
        "It is still challenging to train ARMT to solve the language modeling task well.",
        "ARMT, appendix K",
        "On segments 2 to 8: the backbone that reads eight segments at once, less ARMT and less RMT.",
        Rule(tuple(Contrast({"backbone-window: within": 1, f"{row}: within": -1}) for row in ("armt", "rmt"))),
    ),
)
