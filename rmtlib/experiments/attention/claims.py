"""What the RMT paper says of memory operations, as contrasts of attention and of answers without memory."""

from rmtlib.evaluation.decisions import Contrast, Rule
from rmtlib.experiments.attention.rules import COPY, LOST, RULES, TWO, written_and_read
from rmtlib.experiments.declare import primary
from rmtlib.report.claims import Claim, below

COMPRESS = "RMT manages to compress the whole segment into memory tokens."
PASSES = "Memory allows … to pass information between segments of the long sequence with the help of recurrence."
MIXES = "Tr-XL mixes representations of tokens and reads multiple symbols from one cached state."
FIGURE = "RMT, appendix B, Figure 3"
MEMORY_FIGURE = f"{FIGURE} (“{COMPRESS}”)"
EXCESS = "Excess is mass above chance, as a part of the way to all mass, of the head that has most of it."
GATE = "Gate: more than 0.9 of the generated symbols are right."

CLAIMS = (
    primary(
        "attention-maps",
        "written-and-read",
        "The input is written to memory, and read where it is answered.",
        MEMORY_FIGURE,
        "Reverse in 2 segments: memory is written in the segment that holds the input (excess above 0.5) and read in "
        f"the one that answers (excess above 0.5). {EXCESS} {GATE}",
        RULES["written-and-read"],
    ),
    primary(
        "attention-maps",
        "answer-is-in-memory",
        "Without the memory of the input its answers are lost.",
        MEMORY_FIGURE,
        "Reverse in 2 segments: with the memory after the first segment replaced by the initial one, fewer than 0.2 of "
        f"the answer's symbols are right. {GATE}",
        RULES["answer-is-in-memory"],
    ),
    primary(
        "attention-maps",
        "lost-exactly-between",
        "In four segments, answers are lost exactly if the memory is replaced between their input and them.",
        "this project's question, stricter than what RMT's abstract says",
        "Reverse in 4 segments: with the memory replaced anywhere between input and answer fewer than 0.2 of the "
        f"symbols are right; replaced before their input was read, they lose less than 0.1. {GATE}",
        RULES["lost-exactly-between"],
        note="Until 27 November 2026 this claim quoted the paper. Its rule asks for more than that sentence says.",
    ),
    Claim(
        "copy-too",
        "The same on copy in three segments.",
        FIGURE,
        "The same of copy in 3 segments: written, read, and lost without memory.",
        Rule((*written_and_read(COPY), Contrast({f"{COPY}: lost": 1}, limit=LOST))),
    ),
    Claim(
        "read-to-answer",
        "Memory is looked at more where it is answered than where input comes in.",
        FIGURE,
        "Excess of the head that reads most, in segments of input less in those that answer: reverse in 2 segments, "
        "copy in 3. In the first segment there is nothing to read.",
        below(*((f"{row}: read before", f"{row}: read") for row in (TWO, COPY))),
    ),
    Claim(
        "memory-is-carried",
        "Between input and answer, memory is carried on from the read block to the write block.",
        f"RMT, abstract (“{PASSES}”)",
        "Reverse in 4 segments: in the second, a head of the write block looks at the read block more than by chance "
        "(minus its excess).",
        Rule((Contrast({"reverse-4-rmt-12: carry": -1}),)),
    ),
    Claim(
        "cache-is-read",
        "Transformer-XL looks at its cache where it answers.",
        f"{FIGURE} (“{MIXES}”)",
        "Reverse in 2 segments: Tr-XL reads its cache where it answers (minus the excess of its top head).",
        Rule((Contrast({"reverse-2-trxl-24: cache": -1}),)),
    ),
    Claim(
        "many-symbols-a-state",
        "Transformer-XL reads more symbols from one state of its cache than RMT from one memory token.",
        f"{FIGURE} (“{MIXES}”)",
        "Reverse in 4 segments with memory and cache of 6, half a segment: symbols for each key in use (an entropy) of "
        "the head that reads most, RMT's less Tr-XL's.",
        Rule((Contrast({"reverse-4-rmt-6: symbols a read key": 1, "reverse-4-trxl-6: symbols a cache key": -1}),)),
    ),
)
