"""Quadratic equations, solved step by step (Bulatov et al. 2022, appendix A.3).

Six steps a sample, each padded with 0 to `width` tokens (30 in the paper); a token is a character:

    -4*x^2+392*x-2208=0           equation      the question
    x^2-98*x+552=0                canonical     what is to be written: the loss is on these five steps,
    D=98^2-4*1*552=7396=86^2      discriminant  padding included
    x=(98-86)/2=6                 x1
    x=(98+86)/2=92                x2
    6,92                          answer

An equation without real roots ends after ``=D``; its last three steps are padding alone. Strings, random numbers and
padding are those of the released generator, and so is what may surprise in them: roots are cut towards zero, so that 0
is twice as frequent; the discriminant is written with the absolute value of b; x1 and x2 are written twice if they are
equal, the answer once; a discriminant of 0 or 1 can stand among the equations without real roots.

Every sample is a function of (split, index, seed) alone. An equation belongs to one split, by a hash of its string, in
the proportions of the published sets (100 : 10 : 20); so no equation of the test is ever trained on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar
from zlib import crc32

import numpy as np

from rmtlib.data.algorithmic import AnswerSample, Split, draw_of_split
from rmtlib.data.arrays import kept_arrays
from rmtlib.data.sources import cache_folder
from rmtlib.errors import RmtlibError
from rmtlib.seeds import generator

CHARACTERS = "0123456789+-*/^=()xD;,"
PAD, FIRST_CHARACTER, VOCABULARY = 0, 2, 24  # 1 is unused, as released
STEPS = ("equation", "canonical", "discriminant", "x1", "x2", "answer")
WITHOUT_ROOTS = 0.2

SHARES: dict[Split, range] = {"train": range(10), "validation": range(10, 11), "test": range(11, 13)}  # thirteenths
FIXED_SIZES = {"train": 100_000, "validation": 10_000, "test": 20_000}


@dataclass(frozen=True)
class QuadraticTask:
    """The equations of one range of numbers.

    Attributes:
        roots: they lie between -roots and roots, both excluded.
        multiplier: the largest factor of all coefficients, with either sign.
        width: tokens of a step.
        fixed: samples are those of the published kind of sets, `index` modulo their size, whatever the seed. False:
            every index and seed has a sample of its own.
    """

    roots: int = 100
    multiplier: int = 10
    width: int = 30
    fixed: bool = False
    name: ClassVar[str] = "quadratic"
    chance: ClassVar[float] = WITHOUT_ROOTS  # answers that are right if no equation is said to have roots
    vocabulary: ClassVar[int] = VOCABULARY

    def __post_init__(self) -> None:
        if not 2 <= self.roots <= 1000 or not 1 <= self.multiplier <= 100 or self.width < 2:
            raise RmtlibError(
                f"roots {self.roots}, multiplier {self.multiplier} and width {self.width} "
                "must be 2 to 1000, 1 to 100 and at least 2"
            )

    @property
    def size(self) -> int:
        """The range of its roots."""
        return self.roots

    @property
    def length(self) -> int:
        """Tokens of a sample."""
        return len(STEPS) * self.width

    @property
    def answer_size(self) -> int:
        """Positions at the end that have a target: all but the equation's."""
        return self.length - self.width

    def segment_size(self, segments: int) -> int:
        """Tokens of a segment. RmtlibError unless segments end where steps end."""
        if len(STEPS) % segments:
            raise RmtlibError(
                f"the six steps of an equation cannot be split into {segments} equal segments: use 1, 2, 3 or 6"
            )
        return self.length // segments

    def sample(self, split: Split, index: int, seed: int) -> AnswerSample:
        """Sample `index` of a split: 6 * width tokens, targets of all but the equation's.

        Raises:
            RmtlibError: a step has more than `width` characters (30 are enough for the published numbers), or the task
                has too few equations for this split.
        """
        if self.fixed:
            sets = _fixed_sets(self)[split]
            tokens = sets[index % len(sets)].astype(np.int64)
            return AnswerSample(tokens, self.labels(tokens))
        rng = generator(seed, "quadratic", self.roots, self.multiplier, split, index)
        steps = draw_of_split(lambda: self.draw(rng), lambda steps: split_of(steps[0]), split)
        if steps is None:
            raise RmtlibError(f"no equation with roots below {self.roots} is in the {split} split; raise roots")
        return self.encode(steps)

    def draw(self, rng: np.random.Generator) -> tuple[str, ...]:
        """The six steps of a random equation, of any split."""
        if rng.uniform() < WITHOUT_ROOTS:
            b = int(rng.integers(2 * self.roots))
            c = int(rng.integers(int(b**2 / 4), self.roots**2))
            return rootless_steps(b, c, self._factor(rng))
        x1, x2 = (int(root) for root in rng.uniform(-self.roots, self.roots, 2))
        return real_steps(x1, x2, self._factor(rng))

    def _factor(self, rng: np.random.Generator) -> int:
        return int(rng.choice((-1, 1))) * round(rng.uniform(1, self.multiplier))

    def encode(self, steps: tuple[str, ...]) -> AnswerSample:
        """The tokens of six steps; targets as released: the next token, and padding after the last one."""
        tokens = self.tokens(steps)
        return AnswerSample(tokens, self.labels(tokens))

    def tokens(self, steps: tuple[str, ...]) -> np.ndarray:
        """Each step's characters, padded to `width`. RmtlibError if one does not fit."""
        tokens = np.full((len(STEPS), self.width), PAD, dtype=np.int64)
        for row, step in zip(tokens, steps, strict=True):
            if len(step) > self.width:
                raise RmtlibError(f"the step {step} has {len(step)} characters; width is {self.width}: raise it")
            row[: len(step)] = [FIRST_CHARACTER + CHARACTERS.index(character) for character in step]
        return tokens.reshape(-1)

    def labels(self, tokens: np.ndarray) -> np.ndarray:
        """The loss is on the last five steps' targets: not on the first character of the canonical form, always x."""
        from rmtlib.segments import IGNORE  # which needs torch

        labels = np.append(tokens[1:], PAD).astype(np.int64)
        labels[: self.width] = IGNORE
        return labels


@cache
def _fixed_sets(task: QuadraticTask) -> Mapping[str, np.ndarray]:
    """{"train", "validation", "test"} of 100,000, 10,000 and 20,000 different equations, as tokens (uint8).

    As released, three times as many are drawn as are wanted, and what is left without repetitions is shuffled. So
    frequent equations lose weight: about a quarter, not a fifth, has no real roots. Made once on a machine, in half a
    minute.
    """
    home = cache_folder() / "quadratic" / f"roots-{task.roots}-multiplier-{task.multiplier}-width-{task.width}"
    return kept_arrays(home, partial(draw_fixed_sets, task, FIXED_SIZES))


def draw_fixed_sets(task: QuadraticTask, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Sets of these sizes, see `_fixed_sets`. RmtlibError if there are not as many different equations."""
    rng, total = generator(0, "quadratic", task.roots, task.multiplier, "fixed sets"), sum(sizes.values())
    drawn = {steps[0]: steps for steps in (task.draw(rng) for _ in range(3 * total))}
    if len(drawn) < total:
        raise RmtlibError(f"only {len(drawn)} of {total} equations differ: raise roots or multiplier")
    different = sorted(drawn.values())
    chosen = [different[i] for i in rng.permutation(len(different))[:total]]
    tokens = np.stack([task.tokens(steps).astype(np.uint8) for steps in chosen])
    return dict(zip(sizes, np.split(tokens, np.cumsum(list(sizes.values()))[:-1]), strict=True))


def split_of(equation: str) -> Split:
    """The split that an equation belongs to, whatever the seed."""
    bucket = crc32(equation.encode()) % 13
    return next(split for split, buckets in SHARES.items() if bucket in buckets)


def equations_with_roots(task: QuadraticTask, split: Split) -> int:
    """How many different ones a split has that `QuadraticTask.draw` can give."""
    roots, factors = range(1 - task.roots, task.roots), range(1, task.multiplier + 1)
    equations = {
        real_steps(x1, x2, sign * factor)[0] for x1 in roots for x2 in roots for factor in factors for sign in (-1, 1)
    }
    return sum(split_of(equation) == split for equation in equations)


def real_steps(x1: int, x2: int, factor: int) -> tuple[str, ...]:
    """The six steps of factor * (x - x1) * (x - x2) = 0."""
    low, high = sorted((x1, x2))
    b, c = -(x1 + x2), x1 * x2
    root = high - low  # of the discriminant
    return (
        polynomial(factor, factor * b, factor * c),
        polynomial(1, b, c),
        f"D={abs(b)}^2-4*1*{c}={root**2}={root}^2",
        f"x=({-b}-{root})/2={low}",
        f"x=({-b}+{root})/2={high}",
        str(low) if low == high else f"{low},{high}",
    )


def rootless_steps(b: int, c: int, factor: int) -> tuple[str, ...]:
    """The six steps of factor * (x^2 + b x + c) = 0 that is said to have no real roots."""
    equation, canonical = polynomial(factor, factor * b, factor * c), polynomial(1, b, c)
    return equation, canonical, f"D={b}^2-4*1*{c}={b**2 - 4 * c}", "", "", ""


def polynomial(*coefficients: int) -> str:
    """a, b, c as in "-4*x^2+392*x-2208=0": no term with the coefficient 0, no coefficient 1 before x."""
    terms = ""
    for power, coefficient in zip((2, 1, 0), coefficients, strict=True):
        if coefficient == 0:
            continue
        sign = "-" if coefficient < 0 else "+" if terms else ""
        factors = [str(abs(coefficient))] if abs(coefficient) != 1 or power == 0 else []
        factors += {2: ["x^2"], 1: ["x"], 0: []}[power]
        terms += sign + "*".join(factors)
    return terms + "=0"


def decode(tokens: np.ndarray) -> str:
    """The characters of a step; padding is left out, the unused id is `?`."""
    return "".join("?" if t < FIRST_CHARACTER else CHARACTERS[t - FIRST_CHARACTER] for t in tokens if t != PAD)
