"""`batchscope watch` beside a real training: in a terminal, in a pipe, and after the training was killed."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable

from jobs import MODULE, RUN, jobs_of
from small import tiny_config

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ENDLESS = {"epochs": 3000}


class Terminal:
    """A program in a pseudo-terminal of 40 lines and 100 columns."""

    def __init__(self, command: list[str], folder: object) -> None:
        self.master, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environment |= {"TERM": "xterm-256color"}
        # Tests in the background of a shell ignore SIGINT, and so would a child; a program in a terminal does not.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(command, cwd=folder, stdin=end, stdout=end, stderr=end, env=environment)
        signal.signal(signal.SIGINT, before)
        os.close(end)
        self.written = ""

    def screen(self) -> str:
        """The last whole frame, without colours."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                self.written += os.read(self.master, 65536).decode("utf-8", errors="replace")
            except OSError:  # the program has ended
                break
        frames = self.written.split("\x1b[H")
        return ESCAPES.sub("", frames[-2] if len(frames) > 2 else frames[-1])

    def wait_for(self, seen: Callable[[str], object]) -> str:
        """The first screen in which something is seen."""
        give_up = time.monotonic() + 120
        while not seen(self.screen()):
            assert time.monotonic() < give_up, self.screen()
            assert self.process.poll() is None, self.screen()
            time.sleep(0.1)
        return self.screen()


def test_a_training_is_followed_from_another_terminal_until_it_is_killed(small_study, tmp_path):
    model = tiny_config()["models"]["bert"]
    jobs = jobs_of(tmp_path, tiny_config(models={"bert": model}, budget=ENDLESS, target_batch_sizes=[16]), small_study)
    jobs.file()
    watch = [sys.executable, *MODULE, "watch", "tiny"]
    terminal = Terminal([*watch, "--every", "0.3"], tmp_path)
    before = terminal.wait_for(lambda screen: "stage" in screen)
    assert "Nothing is at work" in before and "0 of 1 training" in before

    training = jobs.fork(f"train/{RUN}", "--threads", 1)
    during = terminal.wait_for(
        lambda screen: "samples/s" in screen and "validation loss" in screen and "left" in screen
    )
    assert f"◐ train/{RUN}" in during and re.search(r"epoch \d+, [\d,]+ of 552,000 samples", during)
    assert re.search(r"Time left: at least .* with 1 core, and \d+ jobs of unknown length\.", during)

    training.process.kill()
    training.complete()
    after = terminal.wait_for(lambda screen: "killed" in screen)
    killed = rf"✗ train/{RUN}  killed after update [\d,]+, .* ago\s+process {training.process.pid} on \S+ is gone"
    assert re.search(killed, after), after
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(timeout=60) == 1, "a job was killed"

    once = subprocess.run([*watch, "--once"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert once.returncode == 1 and re.search(killed, once.stdout) and "\x1b" not in once.stdout
    assert "logs/train" in once.stdout


def test_what_is_no_study_is_one_message(tmp_path):
    done = subprocess.run(
        [sys.executable, *MODULE, "watch", "nothing"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        1,
        "batchscope watch: there is no study nothing: give its config file, or its folder such as results/demo\n",
    )
