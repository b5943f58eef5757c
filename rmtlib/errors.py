"""The two ways in which rmtlib ends a command: bad input, and a stop on request."""


class RmtlibError(Exception):
    """A mistake that the user can mend. The message is one line: what, where, what to do."""


class Stopped(RmtlibError):
    """A run ended early on request (signal, time budget) with a checkpoint; the same command continues."""


class StoppedAtOnce(KeyboardInterrupt):
    """What a signal raises where nothing has to be kept; not an Exception, so that nobody takes it for a failure.

    A name of its own, as Python ends itself with SIGINT after a KeyboardInterrupt in `exec` (of a dataclass that is
    being imported, say), even one that was caught.
    """


class NotHere(RmtlibError):
    """What is asked for is not on this machine, and cannot be fetched now."""
