"""The progress of a long training: a live line in a terminal, a line per minute in a log."""

import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LOG_LINES = 60.0


class ProgressLine:
    """Rate, epoch, loss and remaining time of a training of ``total`` samples, of which ``done`` are done already."""

    def __init__(self, total: int, done: int = 0, visible: bool = True) -> None:
        self.total, self.done, self.done_before = total, done, done
        self.started = self.logged = time.monotonic()
        self.in_terminal = visible and sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=done, unit=" samples", disable=not self.in_terminal, leave=False)

    def advance(self, samples: int, epoch: int, loss: float) -> None:
        """Count ``samples`` more."""
        self.done += samples
        if self.in_terminal:
            self.bar.set_postfix_str(f"epoch {epoch}, loss {loss:.4f}", refresh=False)
            self.bar.update(samples)
        elif time.monotonic() - self.logged >= SECONDS_BETWEEN_LOG_LINES:
            self.logged = time.monotonic()
            rate = (self.done - self.done_before) / (self.logged - self.started)
            minutes_left = (self.total - self.done) / rate / 60
            log.info(
                f"{self.done} of {self.total} samples, epoch {epoch}, loss {loss:.4f}, "
                f"{rate:.0f} samples/s, {minutes_left:.0f} min left"
            )

    def close(self) -> None:
        """Clear the line."""
        self.bar.close()
