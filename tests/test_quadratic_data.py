"""Quadratic equations: the published strings, solutions that are right, targets, disjoint splits, fixed sets."""

import re
from collections import Counter

import numpy as np
import pytest

from rmtlib.data import quadratic
from rmtlib.data.quadratic import (
    CHARACTERS,
    PAD,
    STEPS,
    VOCABULARY,
    QuadraticTask,
    decode,
    equations_with_roots,
    polynomial,
    real_steps,
    rootless_steps,
    split_of,
)
from rmtlib.errors import RmtlibError
from rmtlib.experiments.quadratic.scales import settings
from rmtlib.seeds import generator
from rmtlib.segments import IGNORE

TASK = QuadraticTask()


def read_back(sample) -> list[str]:
    """The six strings, from the tokens alone; padding only at the end of a step."""
    rows = sample.tokens.reshape(len(STEPS), -1)
    for row in rows:
        length = int((row != PAD).sum())
        assert (row[:length] != PAD).all() and row.max(initial=0) < VOCABULARY and 1 not in row
    return [decode(row) for row in rows]


def coefficients(text: str) -> tuple[int, int, int]:
    """a, b, c of "a*x^2+b*x+c=0", by a parser that knows no more than the rules of writing terms."""
    left, right = text.split("=")
    assert right == "0"
    found = {2: 0, 1: 0, 0: 0}
    for term in re.findall(r"[+-]?[^+-]+", left):
        matched = re.fullmatch(r"([+-]?)(\d*)\*?(x(\^2)?)?", term)
        assert matched, term
        sign, digits, x, squared = matched.groups()
        power = 2 if squared else 1 if x else 0
        assert found[power] == 0 and (digits or x) and digits not in ("0", "1" if x else "0")
        found[power] = (-1 if sign == "-" else 1) * int(digits or 1)
    return found[2], found[1], found[0]


def check_solution(steps) -> str:
    """Whether all is arithmetically right, from the strings alone; returns "real" or "none"."""
    equation, canonical, discriminant, x1, x2, answer = steps
    a, b, c = coefficients(equation)
    one, p, q = coefficients(canonical)
    assert one == 1 and a != 0 and (b, c) == (a * p, a * q)
    matched = re.fullmatch(r"D=(\d+)\^2-4\*1\*(-?\d+)=(-?\d+)(?:=(\d+)\^2)?", discriminant)
    assert matched, discriminant
    written_b, written_c, value, root = matched.groups()
    assert (int(written_b), int(written_c), int(value)) == (abs(p), q, p * p - 4 * q)
    if root is None:
        assert (x1, x2, answer) == ("", "", "") and int(value) <= 1 and p >= 0
        return "none"
    assert int(root) ** 2 == int(value)
    found = []
    for text, sign in ((x1, "-"), (x2, "+")):
        matched = re.fullmatch(rf"x=\((-?\d+)\{sign}(\d+)\)/2=(-?\d+)", text)
        assert matched, text
        minus_b, of_d, x = map(int, matched.groups())
        assert (minus_b, of_d) == (-p, int(root))
        assert 2 * x == minus_b + (of_d if sign == "+" else -of_d) and x * x + p * x + q == 0
        found.append(x)
    assert found[0] <= found[1] and answer == ",".join(map(str, sorted(set(found))))
    return "real"


def test_the_papers_example():
    assert real_steps(92, 6, -4) == (
        "-4*x^2+392*x-2208=0",
        "x^2-98*x+552=0",
        "D=98^2-4*1*552=7396=86^2",
        "x=(98-86)/2=6",
        "x=(98+86)/2=92",
        "6,92",
    )


def test_strings_of_the_released_generator_by_hand():
    """The notebook's own printed example; and what is special: 0, 1, equal roots, negative c, no real roots."""
    assert real_steps(-93, -61, -8)[:2] == ("-8*x^2-1232*x-45384=0", "x^2+154*x+5673=0")
    assert real_steps(-93, -61, -8)[2:4] == ("D=154^2-4*1*5673=1024=32^2", "x=(-154-32)/2=-93")
    assert real_steps(0, 0, 1) == ("x^2=0", "x^2=0", "D=0^2-4*1*0=0=0^2", "x=(0-0)/2=0", "x=(0+0)/2=0", "0")
    assert real_steps(5, 5, 2)[0] == "2*x^2-20*x+50=0" and real_steps(5, 5, 2)[4:] == ("x=(10+0)/2=5", "5")
    assert real_steps(3, -3, -1)[:3] == ("-x^2+9=0", "x^2-9=0", "D=0^2-4*1*-9=36=6^2")
    assert real_steps(0, 1, 1)[:2] == ("x^2-x=0", "x^2-x=0") and real_steps(0, 1, -1)[0] == "-x^2+x=0"
    assert polynomial(1, 2, 1) == "x^2+2*x+1=0" and polynomial(-1, 0, -1) == "-x^2-1=0"
    assert rootless_steps(0, 7, 3) == ("3*x^2+21=0", "x^2+7=0", "D=0^2-4*1*7=-28", "", "", "")


@pytest.mark.parametrize("task", [TASK, QuadraticTask(roots=10, multiplier=3, width=24), QuadraticTask(4, 1)])
def test_every_solution_is_right(task):
    kinds = Counter()
    for index in range(1500):
        steps = read_back(task.sample("train", index, 1))
        kinds[check_solution(steps)] += 1
        if steps[-1]:
            assert all(abs(int(x)) < task.roots for x in steps[-1].split(","))
        assert 1 <= abs(coefficients(steps[0])[0]) <= task.multiplier
    assert 0.16 < kinds["none"] / 1500 < 0.24


def test_no_step_is_longer_than_the_paper_s_width():
    longest = max(max(map(len, real_steps(a, b, -10))) for a in range(-99, 100) for b in range(a, 100))
    assert longest == 28
    assert (
        max(len(step) for b in range(200) for c in range(b * b // 4, 10**4, 11) for step in rootless_steps(b, c, -10))
        < 28
    )
    with pytest.raises(RmtlibError, match=r"the step D=\S+ has \d+ characters; width is 20: raise it"):
        for index in range(50):
            QuadraticTask(width=20).sample("train", index, 0)


def test_tokens_and_targets_are_as_released():
    """Written out as the released notebook does it, step by step, and compared."""
    steps = real_steps(92, 6, -4)
    sample = TASK.encode(steps)
    ids = {character: 2 + i for i, character in enumerate("0123456789+-*/^=()xD;,")}
    source, target = np.zeros(180, dtype=int), np.zeros(180, dtype=int)
    for j, step in enumerate(steps):
        tokens = [ids[character] for character in step]
        source[30 * j : 30 * j + len(tokens)] = tokens
        first = max(30 * j - 1, 0)
        target[first : 30 * j + len(tokens) - 1] = tokens[30 * j - first == 0 :]
    assert np.array_equal(sample.tokens, source)
    assert np.array_equal(sample.labels[30:], target[30:]) and (sample.labels[:30] == IGNORE).all()
    assert sample.labels[59] == ids["D"] and sample.labels[179] == PAD  # the next step's first token; the end
    assert len(CHARACTERS) + 2 == VOCABULARY and read_back(sample) == list(steps)


def test_draws_are_distributed_as_in_the_released_generator():
    """Roots cut towards zero, rounded factors (1 and 10 half as frequent), a fifth without real roots."""
    drawn = [TASK.draw(generator(3, "test", i)) for i in range(12_000)]
    answers = [[int(x) for x in steps[-1].split(",")] for steps in drawn if steps[-1]]
    roots = Counter(x for pair in answers for x in pair)
    assert min(roots) == -99 and max(roots) == 99
    others = np.mean([roots[x] for x in range(-99, 100) if x])
    assert 1.5 < roots[0] / others < 2.5
    factors = Counter(abs(coefficients(steps[0])[0]) for steps in drawn)
    middle = np.mean([factors[k] for k in range(2, 10)])
    assert set(factors) == set(range(1, 11)) and all(0.4 < factors[k] / middle < 0.6 for k in (1, 10))
    signs = Counter(steps[0][0] == "-" for steps in drawn)
    assert abs(signs[True] / 12_000 - 0.5) < 0.02
    assert abs(1 - len(answers) / 12_000 - 0.2) < 0.015


def test_no_equation_of_the_test_or_the_validation_is_trained_on():
    """Whatever the seed: small numbers, so that streams repeat themselves."""
    task = QuadraticTask(roots=6, multiplier=2)
    seen = {
        split: {read_back(task.sample(split, i, seed))[0] for seed in (0, 7) for i in range(250)}
        for split in ("train", "validation", "test")
    }
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"] and min(map(len, seen.values())) > 15
    shares = Counter(split_of(TASK.draw(generator(0, "test", i))[0]) for i in range(6000))
    assert [round(13 * shares[split] / 6000) for split in ("train", "validation", "test")] == [10, 1, 2]


def test_samples_are_functions_of_seed_split_and_index():
    keys = [(split, i, seed) for seed in (0, 1) for split in ("train", "validation", "test") for i in (0, 1)]
    made = {key: tuple(TASK.sample(*key).tokens) for key in keys}  # type: ignore[arg-type]
    assert len(set(made.values())) == len(keys)
    assert all(tuple(TASK.sample(*key).tokens) == tokens for key, tokens in made.items())  # type: ignore[arg-type]


def test_fixed_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("RMTLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(quadratic, "FIXED_SIZES", sizes := {"train": 100, "validation": 10, "test": 20})
    task = QuadraticTask(roots=50, fixed=True)
    equations = {split: {read_back(task.sample(split, i, 0))[0] for i in range(n)} for split, n in sizes.items()}
    assert [len(found) for found in equations.values()] == [100, 10, 20]
    assert not equations["train"] & (equations["validation"] | equations["test"])
    third = task.sample("train", 3, 0)
    assert check_solution(read_back(third)) and np.array_equal(third.labels, task.labels(third.tokens))
    assert np.array_equal(third.tokens, task.sample("train", 103, 7).tokens)
    assert len(list((tmp_path / "quadratic").iterdir())) == 1
    with pytest.raises(RmtlibError, match="equations differ: raise roots or multiplier"):
        quadratic.draw_fixed_sets(QuadraticTask(2, 1), sizes)


def test_bad_settings_are_one_line_errors():
    with pytest.raises(RmtlibError, match="roots 1, multiplier 10 and width 30 must be"):
        QuadraticTask(roots=1)
    with pytest.raises(RmtlibError, match="cannot be split into 4 equal segments"):
        TASK.segment_size(4)
    assert [TASK.segment_size(n) for n in (1, 2, 6)] == [180, 90, 30] and TASK.answer_size == 150


def test_what_the_page_says_of_the_published_sets():
    """Drawn anew with array arithmetic, at full size: the share without roots, and known canonical forms."""
    rng, total, sizes = np.random.default_rng(0), 130_000, quadratic.FIXED_SIZES
    assert sum(sizes.values()) == total
    rooted = rng.binomial(3 * total, 1 - quadratic.WITHOUT_ROOTS)
    pairs = np.sort(rng.uniform(-100, 100, (rooted, 2)).astype(int), axis=1) + 100
    factors = rng.choice([-1, 1], rooted) * np.rint(rng.uniform(1, 10, rooted)).astype(int) + 10
    canonical = pairs[:, 0] * 200 + pairs[:, 1]
    different = np.unique(canonical * 21 + factors)
    rootless = 3 * total - rooted  # of so many possible ones that hardly any is drawn twice
    assert 0.24 < rootless / (rootless + len(different)) < 0.29
    chosen = rng.permutation(different)[: round(total * len(different) / (rootless + len(different)))] // 21
    known = set(chosen[: round(len(chosen) * sizes["train"] / total)].tolist())
    test = chosen[-round(len(chosen) * sizes["test"] / total) :].tolist()
    assert np.mean([form in known for form in test]) > 0.95


def test_the_small_scale_asks_about_a_hundred_different_equations():
    task = settings("rmt-6", "small", 0).tasks[-1]
    asked = {tuple(task.sample("test", i, 42).tokens[: task.width]) for i in range(1000)}
    assert 80 < len(asked) < 130 and task.roots == 5 and task.multiplier == 2
    with_roots = {
        tuple(sample.tokens[: task.width])
        for sample in (task.sample("test", i, 42) for i in range(1000))
        if sample.tokens[-task.width]  # an answer
    }
    assert len(with_roots) == equations_with_roots(task, "test") < 30
