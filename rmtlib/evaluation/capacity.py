"""How many key-value pairs a model has stored, estimated from its exact match (Rodkin et al. 2024, Appendix B).

Of n pairs let k be stored. A query for one of these is answered correctly; for any other, the model guesses one of v
values. Asked for a pair at random it is correct with probability

    alpha = k/n + (n - k)/n * 1/v        and so        k = (n v alpha - n) / (v - 1).

alpha is measured on N samples, so k has an interval: alpha's binomial one, mapped by the same line.
"""

from rmtlib.evaluation.statistics import binomial_interval


def pairs_stored(accuracy: float, pairs: int, values: int) -> float:
    """k, the number of stored pairs out of `pairs`; negative below chance.

    Args:
        accuracy: alpha, from 0 to 1.
        values: v, 2 or more.
    """
    return pairs * (values * accuracy - 1) / (values - 1)


def pairs_stored_interval(correct: int, n: int, pairs: int, values: int, level: float = 0.95) -> tuple[float, float]:
    """k's interval when `correct` of `n` queries were answered correctly.

    Raises:
        ValueError: as `binomial_interval`.
    """
    low, high = binomial_interval(correct, n, level)
    return pairs_stored(low, pairs, values), pairs_stored(high, pairs, values)
