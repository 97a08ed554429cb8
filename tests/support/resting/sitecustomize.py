"""A training that rests after every line of its history, so that it lasts longer at no cost of CPU.

Python imports this module at its start where this folder is on PYTHONPATH. The training computes what it always does.
"""

import os
import sys
import time

if sys.orig_argv[1:4] == ["-m", "batchscope", "train"]:
    from batchscope.tracking import Tracker

    log = Tracker.log

    def log_and_rest(self: Tracker, record: dict[str, object]) -> None:
        log(self, record)
        time.sleep(float(os.environ["SECONDS_OF_REST"]))

    Tracker.log = log_and_rest
