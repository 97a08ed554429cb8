"""What a job's device and precision come to, asked without torch in the asking process."""

import subprocess
import sys

import pytest

from batchscope.errors import UserError
from batchscope.hardware.device import pick_place
from batchscope.hardware.place import place_in_words


def test_what_is_named_needs_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    assert place_in_words("cuda", "bfloat16") == ("bfloat16", "cuda")


def test_auto_is_what_a_job_takes_here() -> None:
    place = pick_place("auto", "auto")
    assert place_in_words("auto", "auto") == (str(place.precision).removeprefix("torch."), place.device.type)


def test_a_device_that_is_not_there_is_one_message() -> None:
    with pytest.raises(UserError, match="device: mps"):
        place_in_words("mps", "auto")


def test_the_asking_process_does_not_load_torch() -> None:
    asking = "from batchscope.hardware.place import place_in_words as ask; ask('cpu', 'auto')"
    program = f"import sys; {asking}; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"
