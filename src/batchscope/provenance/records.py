"""The JSON files that say what results were made of. Each class is one file or one part of it."""

from typing import NotRequired, TypedDict

from batchscope.model.records import LoadingReport


class CodeDescription(TypedDict):
    """``fingerprints/code/{hash}.json``: the code that a stage's result depends on."""

    modules: dict[str, dict[str, str]]
    """Module → definition → hash of its syntax tree; ``""`` is the rest of the module, imports above all."""
    templates: dict[str, str]
    """File of a template → hash of its content."""
    libraries: dict[str, str]
    """Library that computes → its release, major.minor."""


class JobRecord(TypedDict):
    """``fingerprints/{job}.json``: what the job's files were made of."""

    spec: dict[str, object]
    """The job's spec, without paths whose content is named beside them."""
    code: str
    """Hash of the stage's code."""
    files: NotRequired[dict[str, str]]
    """File below the study's folder → SHA-256, for each of the job's files that later stages read; these check it."""


class TokensManifest(TypedDict):
    """``tokens/{model}/manifest.json``."""

    spec: dict[str, object]
    """The spec of the tokens."""
    code: str
    """Hash of the stage's code."""
    corpus: str
    """SHA-256 of ``data/corpus.parquet``."""
    split: str
    """SHA-256 of ``data/split.parquet``."""
    fingerprint: str
    """Of the four above."""
    files: NotRequired[dict[str, str]]
    """Relative name → SHA-256 of each file."""
    reused_from: NotRequired[str | None]
    """Folder that the files were taken from; null where they were made here."""


class Git(TypedDict):
    """The checkout that a run was trained with."""

    revision: str
    """Commit."""
    dirty: bool
    """Whether a tracked file differed from it."""


class InitialWeights(TypedDict):
    """What a training began with."""

    random: NotRequired[str]
    """Architecture of random weights."""
    checkpoint: NotRequired[str]
    """Folder or hub id."""
    content: NotRequired[str]
    """Hash of the folder's files."""
    revision: NotRequired[str]
    """Revision of the hub id, as the config names it."""
    commit: NotRequired[str | None]
    """The commit that it was; null where the cache does not say."""
    loading: NotRequired[LoadingReport]
    """What was loaded of the checkpoint and what was left out."""


class RunManifest(TypedDict):
    """``runs/{model}/bs{batch}/{policy}/seed{seed}/manifest.json``."""

    spec: dict[str, object]
    """The spec of the training, resolved."""
    code: str
    """Hash of the stage's code."""
    fingerprint: str
    """Of spec, code and the tokens that training and validation read."""
    initial_weights: InitialWeights
    """What the training began with."""
    corpus: str | None
    """SHA-256 of the corpus that the tokens were made of; null where the tokens do not say."""
    split: str | None
    """SHA-256 of the split that the tokens were made of; null where the tokens do not say."""
    tokens: dict[str, str]
    """Split → SHA-256 of its tokens."""
    files: NotRequired[dict[str, str]]
    """Relative name → SHA-256 of the run's checkpoints, history and facts."""
    versions: dict[str, str | None]
    """Library → version; null where it is not installed."""
    platform: str
    """The operating system."""
    device: str
    """What the hardware calls itself."""
    device_type: str
    """Kind of device: ``cpu``, ``cuda`` or ``mps``."""
    driver: str | None
    """Version of NVIDIA's driver; null on other devices."""
    precision: str
    """Arithmetic of the forward and backward pass: ``float32`` or ``bfloat16``."""
    determinism: str
    """``fast`` or ``strict``."""
    physical_batch_size: int
    """The micro-batch that the run ended with."""
    ranks: int
    """Processes that shared each window."""
    git: Git | None
    """The checkout; null outside of one."""
    reused_from: str | None
    """Folder that the files were taken from; null where the run was trained here."""
