"""Evaluation of a batch in halves where a GPU's memory does not hold it whole."""

from collections.abc import Callable
from typing import Any

import torch

from rmtlib.errors import RmtlibError


def in_halves(judge: Callable[[Any], list[bool]], batch: Any) -> list[bool]:
    """``judge(batch)``, an outcome for each sample; of halves, and halves of these, if memory runs out.

    Args:
        batch: can be sliced: samples, or their indices.

    Raises:
        RmtlibError: one sample alone does not fit.
    """
    try:
        return judge(batch)
    except torch.cuda.OutOfMemoryError:
        if len(batch) == 1:
            raise RmtlibError(
                "one sample of a test does not fit in the GPU's memory: use a GPU with more memory"
            ) from None
    # Outside the handler: the traceback would keep the failed pass's tensors.
    torch.cuda.empty_cache()
    half = len(batch) // 2
    return [*in_halves(judge, batch[:half]), *in_halves(judge, batch[half:])]
