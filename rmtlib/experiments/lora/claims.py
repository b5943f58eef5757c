"""The claims of the LoRA study, and the questions that its comparison leaves open."""

from itertools import permutations

from rmtlib.evaluation.decisions import Contrast, Rule
from rmtlib.experiments.declare import primary
from rmtlib.experiments.lora.rules import GAIN, RMT, RULES
from rmtlib.report.claims import Claim, below

STUDY = "LoRA study"
OWN = "this project's question"


def _rmt(segments: int = 2, memory: int = 4) -> str:
    return f"lora-rmt-{segments}seg-{memory}mem"


CLAIMS = (
    primary(
        "lora-wikitext-2",
        "beats-tuned",
        "LoRA with RMT beats LoRA without memory, after as many training tokens, and not by its vectors alone.",
        OWN,
        "Bits per byte of the raw test text: RMT with 2 segments and 4 memory tokens less the tuned backbone, and less "
        "LoRA with 4 memory tokens that are new in every segment.",
        RULES["beats-tuned"],
    ),
    primary(
        "lora-wikitext-2",
        "memory-is-read",
        "The tuned RMT loses when it reads the memory of another place of the text.",
        OWN,
        "Bits per byte of the raw test text, with the own memory less with that of the window half the text away: "
        "more than two thousandths of a bit below it.",
        RULES["memory-is-read"],
    ),
    primary(
        "lora-wikitext-2",
        "beats-zero-shot",
        "RMT with 2 segments demonstrates a 19% improvement in perplexity compared to vanilla GPT-2.",
        f"{STUDY}, section 4 and Table 1",
        "Its perplexity over that of the backbone, zero-shot, on the same raw text: below 1 by more than half of 19%. "
        "A tuned model against an untuned one: this says nothing of memory.",
        RULES["beats-zero-shot"],
        note="Tuned against untuned: this says nothing of memory.",
    ),
    Claim(
        "as-published",
        "RMT with 2 segments demonstrates a 19% improvement in perplexity compared to vanilla GPT-2.",
        f"{STUDY}, section 4 and Table 1",
        "As its notebook compares: RMT as published on word-level text over the backbone, zero-shot, on raw text.",
        Rule((Contrast({"published-lora-rmt-2seg-4mem: notebook of zero-shot": 1}, limit=1.0),)),
        note="Tuned against untuned, and on two different texts: this says nothing of memory.",
    ),
    Claim(
        "more-segments-hurt",
        "Additional segments (nseg=4,6) lead to performance degradation.",
        f"{STUDY}, section 4 and Table 1",
        "Bits per byte with 2 segments less with 4, and less with 6.",
        below((RMT, _rmt(4)), (RMT, _rmt(6))),
    ),
    Claim(
        "memory-up-to-16",
        "There are diminishing returns with increased memory sizes beyond 16 tokens.",
        f"{STUDY}, abstract and Table 2",
        "Bits per byte with 16 memory tokens less with 32, and less with 64.",
        below((_rmt(memory=16), _rmt(memory=32)), (_rmt(memory=16), _rmt(memory=64))),
    ),
    Claim(
        "alike-up-to-16",
        "No two of 2, 4, 8 and 16 memory tokens differ by a hundredth of a bit per byte.",
        f"this project's reading of {STUDY}, Table 2",
        "Bits per byte with 2, 4, 8 and 16 memory tokens: each less another's, below a hundredth of a bit.",
        Rule(
            tuple(
                Contrast({_rmt(memory=a): 1, _rmt(memory=b): -1}, limit=GAIN) for a, b in permutations((2, 4, 8, 16), 2)
            )
        ),
        note="Added after the records of 4 and 16 memory tokens at small scale had been seen.",
    ),
    Claim(
        "memory-2-best",
        "There is better performance at mem_size = 2, and a degradation as memory size increases.",
        f"{STUDY}, section 4 and Table 2",
        "Bits per byte with 2 memory tokens less with 16, and less with 64.",
        below((_rmt(memory=2), _rmt(memory=16)), (_rmt(memory=2), _rmt(memory=64))),
    ),
    Claim(
        "armt-beats-tuned",
        "LoRA with ARMT beats LoRA without memory, after as many training tokens.",
        OWN,
        "Bits per byte of ARMT with 2 segments less the tuned backbone's.",
        below(("lora-armt-2seg-4mem", "lora")),
    ),
    Claim(
        "earlier-text-helps",
        "A segment is read better with the one before it: there is something for a memory to bring.",
        OWN,
        "Bits per byte of LoRA without memory, tuned and read on two segments at once, less that on single segments.",
        below(("lora-window-2seg", "lora")),
    ),
    Claim(
        "tuning-alone",
        "Tuning without memory improves on the backbone, zero-shot.",
        OWN,
        "Token perplexity of LoRA without memory over the backbone's, less 1; and that of full tuning.",
        Rule((Contrast({"lora: of zero-shot": 1}, limit=1.0), Contrast({"full: of zero-shot": 1}, limit=1.0))),
    ),
    Claim(
        "memory-off",
        "The tuned RMT loses when every segment starts from the initial memory.",
        OWN,
        "Bits per byte with the own memory less with none, of 2 and of 4 segments.",
        Rule(tuple(Contrast({f"{_rmt(n)}: own less off": 1}) for n in (2, 4))),
    ),
)
