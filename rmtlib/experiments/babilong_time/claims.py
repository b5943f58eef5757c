"""The claims on reading time and memory, as contrasts of how both grow."""

from rmtlib.evaluation.decisions import Contrast, Rule
from rmtlib.experiments.babilong_time.rows import MODELS
from rmtlib.experiments.babilong_time.rules import BUSY, FLAT, LINEAR, RULES
from rmtlib.experiments.declare import primary
from rmtlib.report.claims import Claim, below

TABLE_3 = "BABILong, appendix C and Table 3"
OTHERS = [model for model in MODELS if model != "rmt"]

CLAIMS = (
    primary(
        "babilong-time",
        "time-is-linear",
        "Evaluation time grows linearly with context length.",
        TABLE_3,
        f"The slope of log time over log length of RMT, one sample at a time: below {LINEAR}. Gate: fewer than {BUSY} "
        "other processes ran beside the measurement, by the load average.",
        RULES["time-is-linear"],
    ),
    primary(
        "babilong-time",
        "memory-is-flat",
        "The memory that a recurrent model reads with does not grow with the context.",
        "ARMT, section 1 (of ARMT and RMT)",
        f"The part by which the peak grows from the last length but one to the longest: below {FLAT}, for RMT, both "
        "ways to read of ARMT, and Mamba.",
        RULES["memory-is-flat"],
    ),
    Claim(
        "others-are-linear",
        "ARMT's and Mamba's time grows linearly too.",
        "ARMT, section 1 (of ARMT)",
        f"The slopes of log time over log length: below {LINEAR}.",
        Rule(tuple(Contrast({f"{model}: slope": 1}, LINEAR) for model in OTHERS)),
    ),
    Claim(
        "wavefront-is-faster",
        "Reading several segments at once, each in another layer, is faster than segment after segment.",
        "diagonal batching (arXiv 2506.05229), for deep models on a GPU",
        "Log time of the longest context, one sample at a time: ARMT's as a wavefront less that segment after segment.",
        below(("armt-wavefront: log seconds", "armt-loop: log seconds")),
    ),
    Claim(
        "batches-are-faster",
        "A sample takes less time if several are read at once.",
        "this project's question",
        "Log time of a sample of the longest context: in a batch less alone.",
        below(*((f"{model}-batch: log seconds", f"{model}: log seconds") for model in MODELS)),
    ),
    Claim(
        "faster-than-mamba",
        "Recurrent Memory models … are able to process sequences up to 10M and 50M tokens much faster than Mamba.",
        "BABILong, section 3.3",
        "Log time of the longest context (at small scale 1M tokens), one sample at a time: RMT and ARMT less Mamba.",
        below(*((f"{model}-long: log seconds", "mamba-long: log seconds") for model in MODELS if model != "mamba")),
        note="Mamba is read by PyTorch's own operations, without fused kernels. Added while the runs went on, after "
        "their speed on shorter contexts had been seen.",
    ),
    Claim(
        "flat-to-ten-million",
        "Memory stays flat up to ten million tokens and more.",
        "ARMT, section 1 (of ARMT and RMT)",
        "The part by which the peak grows over the last step, to 10M tokens and more (at small scale to 1M): below "
        f"{FLAT}.",
        Rule(tuple(Contrast({f"{model}-long: memory growth": 1}, FLAT) for model in MODELS)),
    ),
)
