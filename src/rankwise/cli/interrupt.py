"""What Ctrl-C and SIGTERM do while a study runs: save, say how to go on, and leave."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SECONDS = 8.0
"""What saving may take; what has not come to a pause by then goes on from its last checkpoint."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal ended the command.

    Attributes:
        signum: Which.
        said: What happened to the runs in training.
    """

    def __init__(self, signum: int, said: str) -> None:
        super().__init__(said)
        self.signum, self.said = signum, said

    def message(self) -> str:
        """What happened to the study, and the command that goes on."""
        command = shlex.join(["rankwise", *sys.argv[1:]])
        name = signal.Signals(self.signum).name
        return f"stopped by {name}; {self.said}. To go on: {command}"


class Stop:
    """Whether a signal has asked to stop.

    Attributes:
        signum: The signal; None as long as there was none.
        training: Whether runs are in training: if not, a signal ends the command at once.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.training = False

    @contextmanager
    def listening(self) -> Iterator["Stop"]:
        """For the duration, take SIGINT and SIGTERM; a second one has its usual effect."""
        before = {one: signal.signal(one, self._asked) for one in SIGNALS}
        try:
            yield self
        finally:
            if hasattr(signal, "setitimer"):
                signal.setitimer(signal.ITIMER_REAL, 0)
            for one, handler in before.items():
                signal.signal(one, handler)

    def _asked(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)
        if not self.training:
            raise Interrupted(signum, "nothing was in training, and what was measured is kept")
        show_cursor = b"\x1b[?25h" if sys.stderr.isatty() else b""
        os.write(2, show_cursor + b"\nsaving the runs in training; Ctrl-C again leaves at once\n")
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, self._late)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)

    def _late(self, signum: int, frame: FrameType | None) -> None:
        raise Interrupted(
            self.signum or signal.SIGINT, "the runs in training go on from their last checkpoint"
        )
