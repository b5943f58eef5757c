"""How an artifact's records are shown: what `Artifact.report()` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rmtlib.evaluation.decisions import Arms
from rmtlib.report.claims import Claim
from rmtlib.report.interactive import Explorable
from rmtlib.report.measurements import Measurement, Record, Results
from rmtlib.report.tables import Table
from rmtlib.report.words import Verb

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rmtlib.report.figures import Style


@dataclass(frozen=True)
class Report:
    """The parts of one artifact's pages. Each is made from its `Results`, so that all show the same numbers.

    Attributes:
        measure: what one record measured; the first measurement's metric is the row's main one, which claims judge.
        printed: what the paper and its authors published, as far as it is in numbers.
        styles: colour and marker of every curve's name. Drawing a name without one is an error.
        figure: the figure as matplotlib has it.
        alt: what the figure shows, for those who do not see it.
        caption: what to see in the figure, in a sentence with its numbers.
        by_scale: the tables of one scale; None if there is nothing to show.
        compare: the paper beside ours.
        paper: the paper's own values or words.
        others: tables of what others published, shown after the paper's own.
        claims: the paper's sentences that can be checked.
        arms: what the claims compare: named samples with one number a seed, from the records of one scale.
        label: an arm in words, as its row is at a scale ("paper": in the paper).
        verbs: how numbers of arms are compared in words, by what they are numbers of.
        paper_arms: the arms that the paper prints, with its values.
        relative: whether the spread between seeds grows with the mean (perplexity), which is not the paper's.
        explore: the curves that the book lets a reader explore; None if the figure has none.
    """

    measure: Callable[[Record], Iterable[Measurement]]
    styles: Mapping[str, Style]
    figure: Callable[[Results], Figure]
    alt: Callable[[Results], str]
    caption: Callable[[Results], str]
    by_scale: tuple[Callable[[Results, str], Table | None], ...]
    compare: Callable[[Results], Table]
    paper: Callable[[Results], Table]
    claims: tuple[Claim, ...] = ()
    arms: Callable[[Iterable[Record]], Arms] = lambda records: {}
    printed: tuple[Measurement, ...] = ()
    label: Callable[[str, Results, str], str] = lambda arm, results, scale: arm
    verbs: Mapping[str, Verb] = field(default_factory=dict)
    paper_arms: Mapping[str, float] = field(default_factory=dict)
    relative: bool = False
    others: tuple[Callable[[Results], Table], ...] = ()
    explore: Explorable | None = None
