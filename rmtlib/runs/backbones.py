"""Which pretrained backbone a machine has: GPT-2, the papers' own, is on the hub alone; SmolLM2 has other mirrors too.

Light to import: no torch.
"""

from contextlib import suppress

from rmtlib.data import sources
from rmtlib.errors import RmtlibError

GPT2, SMOLLM2 = "gpt2", "smollm2"
SMOLLM2_FILE = "smollm2-135m-instruct"


def has_gpt2() -> bool:
    """Whether GPT-2's weights are on this machine."""
    return is_cached(GPT2)


def is_cached(name: str) -> bool:
    """Whether a model's weights are on this machine, in the hub's cache, under the name that they are loaded by."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    return isinstance(try_to_load_from_cache(name, "model.safetensors"), str)


def fetch_from_hub(name: str) -> None:
    """Bring a pretrained model and its tokeniser onto this machine, so that runs that start together find them.

    Raises:
        RmtlibError: they cannot be had.
    """
    from rmtlib.models.backbones import load_hf, load_hf_tokenizer

    load_hf_tokenizer(name)
    load_hf(name)  # last: weights that are there stand for both


def at_hand() -> str | None:
    """ "gpt2" if it is on this machine, else "smollm2" if that is, else None. Asks no network."""
    if has_gpt2():
        return GPT2
    return None if sources.state(SMOLLM2_FILE) == "absent" else SMOLLM2


def fetch_gpt2_or_other() -> str | None:
    """Bring GPT-2 onto this machine, or SmolLM2 if the hub cannot be asked; what is `at_hand` then."""
    if not has_gpt2():
        from rmtlib.models.backbones import load_hf

        try:
            load_hf(GPT2)
        except RmtlibError:
            with suppress(RmtlibError):
                sources.fetch(SMOLLM2_FILE)
    return at_hand()
