"""Where a job would compute and in what precision, found out without torch in this process.

A process that has asked CUDA for its devices no longer sees those that it leases afterwards; so another one asks.
"""

import json
import subprocess
import sys

from batchscope.errors import UserError

PROGRAM = """
import json, sys
from batchscope.hardware.device import pick_place
place = pick_place(sys.argv[1], sys.argv[2])
print(json.dumps([place.precision_name, place.device.type]))
"""


def place_in_words(device: str, precision: str) -> tuple[str, str]:
    """Precision and kind of device that the config's ``device`` and ``precision`` come to here: ``float32``, ``cpu``.

    Raises UserError where the device is not available.
    """
    if "auto" not in (device, precision):
        return precision, device
    asked = [sys.executable, "-c", PROGRAM, device, precision]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"device: {device} cannot be used here: {done.stderr.strip().rpartition(chr(10))[2]}")
    found, kind = json.loads(done.stdout)
    return str(found), str(kind)
