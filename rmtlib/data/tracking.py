"""Where people and objects are after each statement of a story, and questions on it that bAbI does not ask.

Small models do not leave the plateau of answering by recency on two and three facts; asked along the story where a
person or an object is, they do. These questions and answers are this project's own: the papers train on bAbI's alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rmtlib.data.babi_world import VERBS
from rmtlib.errors import RmtlibError

STATEMENTS = {
    "move": re.compile(rf"(\w+) (?:{'|'.join(VERBS['move'])}) the (\w+)\."),
    "get": re.compile(rf"(\w+) (?:{'|'.join(VERBS['get'])}) the (\w+)(?: there)?\."),
    "drop": re.compile(rf"(\w+) (?:{'|'.join(VERBS['drop'])}) the (\w+)(?: there)?\."),
    "give": re.compile(rf"(\w+) (?:{'|'.join(VERBS['give'])}) the (\w+) to (\w+)\."),
}
BEFORE = 0.6  # of the questions on three facts, how many ask where an object was before


@dataclass
class Tracker:
    """What statements tell, read one after the other.

    Attributes:
        room: person -> where he or she went last.
        holder: object -> the person who has it.
        trail: object -> the rooms where it was, in order, no room twice in a row; None while nobody can tell.
    """

    room: dict[str, str] = field(default_factory=dict)
    holder: dict[str, str] = field(default_factory=dict)
    trail: dict[str, list[str | None]] = field(default_factory=dict)

    def read(self, statement: str) -> None:
        """Raises RmtlibError if it is none of the world of people and objects."""
        for action, pattern in STATEMENTS.items():
            if found := pattern.fullmatch(statement):
                self._happens(action, *found.groups())
                return
        raise RmtlibError(f"cannot track {statement!r}: no one moves, gets, drops or gives; qa4 has no such stories")

    def _happens(self, action: str, person: str, what: str, receiver: str = "") -> None:
        if action == "move":
            self.room[person] = what
            for item in [item for item, holder in self.holder.items() if holder == person]:
                self._was_in(item, what)
            return
        self._was_in(what, self.room.get(person))
        if action == "drop":
            self.holder.pop(what, None)
        else:
            self.holder[what] = receiver or person

    def _was_in(self, item: str, room: str | None) -> None:
        trail = self.trail.setdefault(item, [])
        if not trail or trail[-1] != room:
            trail.append(room)

    def where(self, name: str) -> str | None:
        """The room of a person or an object; None if it was not told."""
        return self.room.get(name) or (self.trail.get(name) or [None])[-1]

    def before(self, item: str, room: str) -> str | None:
        """Where an object was before it was last in this room; None if it was not told."""
        trail = self.trail.get(item, [])
        last = max((i for i, place in enumerate(trail) if place == room), default=0)
        return trail[last - 1] if last else None


def tracked_questions(
    facts: Sequence[str], count: int, rng: np.random.Generator, *, before: bool
) -> list[tuple[int, str, str]]:
    """Up to `count` questions along a story, as (facts before it, question, answer), in order.

    Each stands after a random fact and is about a random person or object, half and half, that has a place by then.

    Args:
        facts: the story's statements.
        before: ask `BEFORE` of them where an object was before a room, if there is an answer (as qa3 does).
    """
    tracker, asked = Tracker(), []
    after = np.bincount(rng.integers(1, len(facts) + 1, size=count), minlength=len(facts) + 1)
    for number, fact in enumerate(facts, 1):
        tracker.read(fact)
        for _ in range(int(after[number])):
            if found := _question(tracker, rng, before):
                asked.append((number, *found))
    return asked


def _question(tracker: Tracker, rng: np.random.Generator, before: bool) -> tuple[str, str] | None:
    if before and rng.random() < BEFORE:
        pairs = [
            (item, room, earlier)
            for item, trail in tracker.trail.items()
            for room in dict.fromkeys(trail)
            if room is not None and (earlier := tracker.before(item, room)) is not None
        ]
        if pairs:
            item, room, earlier = pairs[rng.integers(len(pairs))]
            return f"Where was the {item} before the {room}?", earlier
    items = [item for item in tracker.trail if tracker.where(item)]
    people = list(tracker.room)
    if items and (not people or rng.random() < 0.5):
        item = items[rng.integers(len(items))]
        return f"Where is the {item}?", tracker.where(item) or ""
    if people:
        person = people[rng.integers(len(people))]
        return f"Where is {person}?", tracker.room[person]
    return None
