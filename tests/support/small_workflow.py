"""Real Snakemake, on this checkout's Snakefile, in a folder of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from forked import Forked, together

from batchscope.data.spec import SyntheticSpec
from batchscope.data.synthetic import synthetic_reviews

# The checkpoints have more than the megabyte up to which Snakemake looks at an input's content if not told otherwise.
SMALL = {
    "study": "small",
    "data": {"source": "reviews.jsonl", "max_length": 24},
    "models": {
        "bert": {
            "architecture": "bert",
            "config": {"hidden_size": 192, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
            "vocabulary_size": 300,
        }
    },
    "target_batch_sizes": [16, 64],
    "physical_batch_size": 16,
    "lr_policies": {
        "constant": {"base_lr": 1e-3},
        "sqrt": {"base_lr": 1e-3, "scaling": "sqrt", "reference_batch_size": 16},
    },
    "seeds": [1],
    "budget": {"epochs": 1},
    "precision": "float32",
    "device": "cpu",
}

SECRETS = {
    "WANDB_API_KEY": "5ec2e7" * 6 + "abcd",
    "HF_TOKEN": "hf_SecretOfTheHub",
    "HUGGING_FACE_HUB_TOKEN": "hf_SecretOfTheHub",
}
"""What a user has in the environment; no file may have it."""


def files_without_secrets(folder: Path) -> list[Path]:
    """Every file below a folder; none of them has a secret in it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        assert not [name for name, secret in SECRETS.items() if secret.encode() in content], path
    return files


REFERENCE = Path("config/config.yaml")
RESTING = Path(__file__).with_name("resting")


@dataclass
class Workflow:
    """The workflow of a config, run in ``folder``."""

    root: Path
    folder: Path

    @property
    def config(self) -> Path:
        """The config that ``snakemake`` takes if none is named."""
        return self.folder / "config.json"

    def write_config(self, path: Path | None = None, **changes) -> None:
        """Write the small study's config, changed, and its reviews where they are not there yet."""
        (path or self.config).write_text(json.dumps(SMALL | changes))
        reviews = self.folder / "reviews.jsonl"
        if not reviews.exists():
            made = synthetic_reviews(SyntheticSpec(reviews=160, seed=0, label_noise=0.03))
            lines = [review._asdict() for review in made]
            reviews.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def command(self, *arguments, configfile: Path | None = None) -> list[str]:
        """Snakemake's command line. ``REFERENCE`` takes the Snakefile's own config."""
        config = [] if configfile == REFERENCE else ["--configfile", configfile or self.config]
        command = [sys.executable, "-m", "snakemake", "--snakefile", self.root / "Snakefile"]
        return [str(part) for part in [*command, "--directory", self.folder, "--cores", "2", *config, *arguments]]

    @property
    def study(self) -> Path:
        """The study's folder."""
        return self.folder / "results/small"

    def take_data_of(self, finished: "Workflow") -> None:
        """Corpus, split, tokens and reviews of a finished study, as Snakemake left them; no run."""
        shutil.copytree(finished.folder, self.folder, dirs_exist_ok=True)
        kept = {"data", "tokens", "fingerprints"}
        for path in self.study.iterdir():
            if path.name not in kept:
                shutil.rmtree(path)
        for path in (self.study / "fingerprints").iterdir():
            if path.name.startswith(("train", "evaluate", "attention", "maps", "certify")):
                shutil.rmtree(path)

    def take_all_but(self, finished: "Workflow", run: str) -> None:
        """A finished study as Snakemake left it, without one of its runs and what was compiled of all."""
        shutil.copytree(finished.folder, self.folder, dirs_exist_ok=True)
        for path in (f"runs/{run}", f"logs/train/{run}.log", "tables", "figures", "report"):
            (shutil.rmtree if (self.study / path).is_dir() else Path.unlink)(self.study / path)
        for record in self.study.glob(f"fingerprints/*/{run}.json"):
            record.unlink()

    def kill_in_mid_training(self, *targets: str) -> None:
        """Start Snakemake; when a training has saved a state, kill them both. The trainings rest, so none is done."""
        resting = {"PYTHONPATH": str(RESTING), "SECONDS_OF_REST": "0.2"}
        process = subprocess.Popen(
            self.command("--", *targets),
            env=self.environment | resting,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        give_up = time.monotonic() + 300
        while not list(self.study.glob("state/*/state-*.pt")) and time.monotonic() < give_up:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert list(self.study.glob("state/*/state-*.pt"))

    @property
    def environment(self) -> dict[str, str]:
        """The package is the checkout's because the Snakefile says so, not because the test does."""
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | SECRETS

    def snakemake(self, *arguments, configfile: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in a forked process; its jobs start fresh ones. stdout and stderr together in ``.stdout``."""
        _, _, module, *words = self.command(*arguments, configfile=configfile)
        return together(Forked(module, words, self.folder, self.environment).complete())

    def snakemake_afresh(self) -> subprocess.CompletedProcess[str]:
        """The same in a process that imports what it needs."""
        return subprocess.run(
            self.command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            check=False,
            timeout=600,
        )

    def dry_run(self, *arguments, configfile: Path | None = None) -> str:
        """The output of a dry run that succeeds."""
        done = self.snakemake("--dry-run", *arguments, configfile=configfile)
        assert done.returncode == 0, done.stdout
        return done.stdout
