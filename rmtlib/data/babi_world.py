"""A simulator of the bAbI world for qa1-qa5: stories with the grammar and the statistics of the published files.

The rules below were read off the published en-10k files (v1.2); the tests compare a simulated file with them.

* qa1, qa2, qa3, qa5: four people and three objects start in rooms drawn at random, which the reader is not told. Each
  step draws an action and a person (and a room to move to) until they fit: a person moves to another room, gets an
  object that lies in the same room, or drops one. In qa5 a give is drawn without a person: the first object in the
  order apple, football, milk whose holder is not alone goes to the first other person there in the order Mary, Fred,
  Bill, Jeff.
* After every second step a question is tried: one of the last five statements is drawn, and the question is about its
  person (qa1), its object (qa2, qa3), or the last gift of its object (qa5), if what was told answers it. So questions
  are two, or a few times two, statements apart. A story ends with its fifth question.
* qa4: three rooms in a row, told in two sentences, and one question for the subject of one of them.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rmtlib.seeds import torch_seed

T = TypeVar("T")

TASKS = ("qa1", "qa2", "qa3", "qa4", "qa5")
ROOMS = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
OBJECTS = ("apple", "football", "milk")
PEOPLE = ("Daniel", "John", "Mary", "Sandra")
GIVERS = ("Mary", "Fred", "Bill", "Jeff")
VERBS = {
    "move": ("went to", "moved to", "travelled to", "journeyed to", "went back to"),
    "get": ("got", "took", "grabbed", "picked up"),
    "drop": ("left", "dropped", "discarded", "put down"),
    "give": ("gave", "handed", "passed"),
}
ACTIONS = {
    "qa1": ("move",),
    "qa2": ("move", "get", "drop"),
    "qa3": ("move", "get", "drop"),
    "qa5": ("move", "get", "drop", "give"),
}
THERE = {"qa2": {"get": 1.0, "drop": 0.2}, "qa3": {"get": 0.2, "drop": 0.2}, "qa5": {"get": 1.0, "drop": 0.2}}
QUESTIONS_PER_STORY = 5  # in qa4: 1
RECENT = 5  # a question is about one of so many last statements
EARLIER_VISIT = 0.75  # qa3: an earlier room is asked for less often, by this factor for each later move
MIDDLE_IS_OBJECT = 2 / 3  # qa4: how often a sentence names the room in the middle last
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


class Dice:
    """Uniform choices from one seeded stream; uses `random()` only, which is the same in every Python."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        point = self.random() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            point -= weight
            if point < 0:
                return item
        return items[-1]


@dataclass(frozen=True)
class Event:
    """One statement: who does what. `target` is a room (move) or a person (give)."""

    action: str
    actor: str
    item: str = ""
    target: str = ""


@dataclass(frozen=True)
class Asked:
    """A question that could be asked now; `support` are indices of events, in the order in which they are given."""

    question: str
    answer: str
    support: tuple[int, ...]
    weight: float = 1.0


def simulated_lines(task: str, n_questions: int, seed: int, split: str) -> list[str]:
    """The lines of a simulated file in the published format: whole stories with at least `n_questions` questions.

    Every story has a stream of its own, named by task, split and number, so that a longer file begins with the
    shorter one and no split shares a stream with another.
    """
    per_story = 1 if task == "qa4" else QUESTIONS_PER_STORY
    lines: list[str] = []
    for story in range(-(-n_questions // per_story)):
        dice = Dice(torch_seed(seed, "data", "babi", task, split, story))
        lines += _rooms_in_a_row(dice) if task == "qa4" else _story(task, dice)
    return lines


def _story(task: str, dice: Dice) -> list[str]:
    world = World(task, dice)
    ask = {"qa1": _where_is_person, "qa2": _where_is_object, "qa3": _where_was_object, "qa5": _gift}[task]
    lines: list[str] = []
    number: list[int] = []  # line number of each event
    questions = 0
    while questions < QUESTIONS_PER_STORY:
        for _ in range(2):
            event = world.step()
            number.append(len(lines) + 1)
            lines.append(f"{number[-1]} {_sentence(task, event, dice)}")
        recent = range(max(0, len(world.events) - RECENT), len(world.events))
        possible = [asked for index in recent for asked in ask(world, index)]
        if possible:
            asked = dice.weighted(possible, [item.weight for item in possible])
            support = " ".join(str(number[index]) for index in asked.support)
            lines.append(f"{len(lines) + 1} {asked.question} \t{asked.answer}\t{support}")
            questions += 1
    return lines


class World:
    """Where everybody and everything is, what has happened, and which events moved or touched what."""

    def __init__(self, task: str, dice: Dice) -> None:
        self.dice = dice
        self.actions = ACTIONS[task]
        self.people = GIVERS if task == "qa5" else PEOPLE
        self.room = {person: dice.pick(ROOMS) for person in self.people}
        self.place = {item: dice.pick(ROOMS) for item in OBJECTS}  # a room, or the person who holds it
        self.events: list[Event] = []
        self.moves: dict[str, list[int]] = defaultdict(list)  # person -> indices of events
        self.handled: dict[str, list[int]] = defaultdict(list)  # object -> indices of gets and drops
        self.gifts: dict[str, list[int]] = defaultdict(list)  # object -> indices of gives

    def step(self) -> Event:
        """Draw actions until one fits the world; let it happen."""
        event = None
        while event is None:
            event = self._draw()
        index = len(self.events)
        self.events.append(event)
        if event.action == "move":
            self.room[event.actor] = event.target
            self.moves[event.actor].append(index)
        elif event.action == "give":
            self.place[event.item] = event.target
            self.gifts[event.item].append(index)
        else:
            self.place[event.item] = event.actor if event.action == "get" else self.room[event.actor]
            self.handled[event.item].append(index)
        return event

    def _draw(self) -> Event | None:
        action = self.dice.pick(self.actions)
        if action == "give":
            return self._possible_gift()
        actor = self.dice.pick(self.people)
        if action == "move":
            room = self.dice.pick(ROOMS)
            return Event("move", actor, target=room) if room != self.room[actor] else None
        place = self.room[actor] if action == "get" else actor
        items = [item for item in OBJECTS if self.place[item] == place]
        return Event(action, actor, self.dice.pick(items)) if items else None

    def _possible_gift(self) -> Event | None:
        for item in OBJECTS:
            holder = self.place[item]
            if holder in self.room:
                for person in self.people:
                    if person != holder and self.room[person] == self.room[holder]:
                        return Event("give", holder, item, person)
        return None


def _where_is_person(world: World, index: int) -> list[Asked]:
    person = world.events[index].actor
    last = world.moves[person][-1]
    return [Asked(f"Where is {person}?", world.events[last].target, (last,))]


def _where_is_object(world: World, index: int) -> list[Asked]:
    """Where the object is: where its holder went last, or where the person who dropped it had gone last."""
    item = world.events[index].item
    if not item:
        return []
    last = world.handled[item][-1]
    event = world.events[last]
    moves = world.moves[event.actor]
    if event.action == "get":  # asked only when the holder has told where he or she carried it
        moves = [move for move in moves[-1:] if move > last]
    else:
        moves = moves[: bisect_left(moves, last)]
    return [Asked(f"Where is the {item}?", world.events[moves[-1]].target, (last, moves[-1]))] if moves else []


def _where_was_object(world: World, index: int) -> list[Asked]:
    """Where the object was before a room it was carried to: by the last visit to that room of its last carrier."""
    item = world.events[index].item
    if not item:
        return []
    last = world.handled[item][-1]
    event = world.events[last]
    start, end = last, len(world.events)
    if event.action == "drop":
        start, end = world.handled[item][-2], last
    moves = world.moves[event.actor]
    moves = moves[bisect_left(moves, start) : bisect_left(moves, end)]
    visits = {world.events[move].target: position for position, move in enumerate(moves)}
    return [
        Asked(f"Where was the {item} before the {room}?", world.events[moves[position - 1]].target,
              (last, moves[position], moves[position - 1]), EARLIER_VISIT ** (len(moves) - 1 - position))
        for room, position in visits.items() if position > 0
    ]  # fmt: skip


def _gift(world: World, index: int) -> list[Asked]:
    """The three questions about the last gift of an object, two of them in two forms, each as often as the others."""
    event = world.events[index]
    if event.action != "give":
        return []
    last = world.gifts[event.item][-1]
    giver, item, receiver = world.events[last].actor, event.item, world.events[last].target
    return [
        Asked(f"What did {giver} give to {receiver}?", item, (last,), 2.0),
        Asked(f"Who gave the {item}?", giver, (last,)),
        Asked(f"Who gave the {item} to {receiver}?", giver, (last,)),
        Asked(f"Who received the {item}?", receiver, (last,)),
        Asked(f"Who did {giver} give the {item} to?", receiver, (last,)),
    ]


def _sentence(task: str, event: Event, dice: Dice) -> str:
    verb = dice.pick(VERBS[event.action])
    if event.action == "move":
        return f"{event.actor} {verb} the {event.target}."
    if event.action == "give":
        return f"{event.actor} {verb} the {event.item} to {event.target}."
    there = " there" if dice.random() < THERE[task][event.action] else ""
    return f"{event.actor} {verb} the {event.item}{there}."


def _rooms_in_a_row(dice: Dice) -> list[str]:
    """qa4: first - middle - last along one direction; each sentence relates the middle and an end."""
    rooms = list(ROOMS)
    first, middle, last = (rooms.pop(int(dice.random() * len(rooms))) for _ in range(3))
    direction = dice.pick(tuple(OPPOSITE))  # the first room lies in this direction of the middle
    relations = []
    for end, side in ((first, direction), (last, OPPOSITE[direction])):
        if dice.random() < MIDDLE_IS_OBJECT:
            relations.append((end, side, middle))
        else:
            relations.append((middle, OPPOSITE[side], end))
    asked = dice.pick((0, 1))
    subject, side, other = relations[asked]
    question = dice.pick((f"What is {side} of the {other}?", f"What is the {other} {OPPOSITE[side]} of?"))
    lines = [f"{i} The {a} is {b} of the {c}." for i, (a, b, c) in enumerate(relations, 1)]
    return [*lines, f"3 {question}\t{subject}\t{asked + 1}"]
