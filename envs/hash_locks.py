"""Writes the hashes of all files of each pinned release into the lock files: `make locks`, after a change of a pin.

`uv` asks the package index. requirements-cpu.lock stays as it is: its wheel is not in the index. So do comments,
order and markers of the others.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted(set(ROOT.glob("requirements*.lock")) - {ROOT / "requirements-cpu.lock"})


class Pin(NamedTuple):
    """One distribution of a lock file."""

    requirement: str
    """Name, version and marker: ``triton==3.7.1 ; sys_platform == 'linux'``."""
    hashes: frozenset[str]
    """``sha256:…`` of each file that may be installed."""

    @property
    def key(self) -> str:
        """Name and version alone, the name in the index's spelling."""
        name, version = self.requirement.partition(";")[0].strip().split("==")
        return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def entries(text: str) -> Iterator[Pin | str]:
    """Each pin of a lock file, and each line between them as it is."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line.strip())
            yield Pin(requirement.strip(), frozenset(hash_.strip() for hash_ in hashes))
        else:
            yield line


def of_the_index(pins: list[Pin]) -> dict[str, frozenset[str]]:
    """Key → hashes of the files in the package index."""
    command = ["uv", "pip", "compile", "--no-deps", "--universal", "--python-version", "3.11.9"]
    command += ["--no-python-downloads", "--generate-hashes", "--no-header", "--no-annotate", "-"]
    asked = "\n".join(pin.requirement for pin in pins)
    found = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {pin.key: pin.hashes for pin in entries(found) if isinstance(pin, Pin)}


def main() -> None:
    """Renews every lock file."""
    for lock in LOCKS:
        parsed = list(entries(lock.read_text(encoding="utf-8")))
        pins = [entry for entry in parsed if isinstance(entry, Pin)]
        found = of_the_index(pins)
        lines = []
        for entry in parsed:
            if isinstance(entry, Pin):
                hashes = sorted(found[entry.key])
                lines.append(" \\\n    ".join([entry.requirement, *(f"--hash={hash_}" for hash_ in hashes)]))
            else:
                lines.append(entry)
        lock.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{lock.name}: {len(pins)} releases, {sum(len(found[pin.key]) for pin in pins)} files in the index")


if __name__ == "__main__":
    main()
