"""The file in which the process of a job says that it lives, and how far it is. Pure."""

from typing import Literal, NotRequired, TypedDict

from batchscope.evaluation.records import Scores

Phase = Literal["waiting", "starting", "working", "stopped", "failed"]


class Progress(TypedDict):
    """How far a training is, after its last update."""

    update: int
    """Number of the update, from 1."""
    epoch: int
    """Number of the epoch, from 1."""
    samples: int
    """Examples seen since the start of the run."""
    loss: float
    """Mean loss of the update's window."""
    accuracy: float
    """Accuracy of the update's window, during training."""
    samples_per_second: float | None
    """Since the first update of this process, validations included; null until its second update."""
    idle_seconds: float
    """Between the last update and the writing of the file."""
    validation: NotRequired[Scores]
    """Scores of this process's last validation."""


class JobProcess(TypedDict):
    """The process of a job, written by itself every few seconds. It is deleted when the job succeeds. It stays when
    the job fails, and when the process is killed: then its last beat gets older and older."""

    host: str
    """Name of the machine."""
    machine: str
    """Boot and process namespace in which ``pid`` counts; empty where the system has no ``/proc``."""
    pid: int
    started_ticks: int
    """When the process started, as the kernel counts: tells it from a later one with the same ``pid``."""
    started: float
    """When the process started, in seconds since 1970."""
    slurm_job: NotRequired[str]
    """Id of the SLURM job that it is in."""
    job_file: str
    """The job file that it reads."""
    phase: Phase
    """``waiting`` for another process or for a device, ``starting``, ``working``; ``stopped`` by a signal or its time
    limit with its state saved, or ``failed``."""
    message: NotRequired[str]
    """Why it stopped or failed."""
    beat: int
    """How often the file was written: whoever sees it change knows that the process lives, whatever the clocks say."""
    progress: NotRequired[Progress]
    """Of a training: how far it is. Absent before the first update."""
