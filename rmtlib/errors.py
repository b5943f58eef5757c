"""The two ways in which rmtlib ends a command: bad input, and a stop on request."""


class RmtlibError(Exception):
    """A mistake that the user can mend. The message is one line: what, where, what to do."""


class Stopped(RmtlibError):
    """A run ended early on request (signal, time budget) with a checkpoint; the same command continues."""


class StoppedAtOnce(KeyboardInterrupt):
    """Raised by a signal where nothing has to be kept. Not an Exception, so that no fallback takes it for a failure.

    Not KeyboardInterrupt itself: after one that passed through `exec` of a text (as when a dataclass is imported)
    Python ends itself with SIGINT, even if it was caught. It does not after a subclass.
    """


class NotHere(RmtlibError):
    """What is asked for is not on this machine, and cannot be fetched now."""
