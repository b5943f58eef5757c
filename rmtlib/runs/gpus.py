"""Assigns a machine's GPUs to a command's runs: a new run gets those that have the fewest."""

from collections.abc import Iterable


class Gpus:
    """The GPUs of this machine, and how many runs train on each.

    Args:
        ids: what CUDA_VISIBLE_DEVICES calls them.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self.runs = dict.fromkeys(ids, 0)

    def take(self, devices: int, helpers: int = 0) -> tuple[str, ...]:
        """The GPUs for a run that `devices` processes train, then those for so many that help to test it.

        At most all there are; none if there are fewer than two, so that the worker sees what the command sees. Helpers
        come when the training is done, so that only the first `devices` count as taken.
        """
        if len(self.runs) < 2:
            return ()
        chosen = sorted(self.runs, key=lambda name: self.runs[name])[: devices + helpers]
        for name in chosen[:devices]:
            self.runs[name] += 1
        return tuple(chosen)

    def give_back(self, taken: Iterable[str], devices: int) -> None:
        """Free what a run had that has ended."""
        for name in tuple(taken)[:devices]:
            self.runs[name] -= 1
