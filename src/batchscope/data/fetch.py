"""Bring a study's models and data from the hub into a cache: jobs on nodes without a network then find them there."""

import shutil
from pathlib import Path
from typing import NamedTuple

from batchscope.config.study import Study
from batchscope.data.hub import WEIGHTS, Kind, cache_folder, missing, snapshot
from batchscope.errors import UserError


class Item(NamedTuple):
    """One thing to fetch, and the key of the config that names it."""

    key: str
    kind: Kind
    name: str
    revision: str


def fetch(configfile: Path, cache: Path | None) -> None:
    """Download every model and the data set of a study, and print what was fetched and how jobs find it offline.

    ``cache`` is the folder that the jobs get as ``HF_HOME``; the environment's if None. Files in the cache are not
    downloaded again. Raises UserError for what the hub refuses, and before a download that the disk cannot hold.
    """
    from huggingface_hub import constants

    cache = None if cache is None else cache.expanduser().resolve()
    study = Study.from_yaml(configfile)
    items = wanted(study)
    if not items:
        print("Nothing to fetch: the models and the data of this study are local, made from scratch or synthetic.")
        return
    if constants.HF_HUB_OFFLINE:
        raise UserError("HF_HUB_OFFLINE is set, which keeps the hub off: fetch without it")
    commits = {}
    for item in items:
        to_load = missing(*item, cache)
        _check_space(item, to_load, cache_folder(cache))
        folder = snapshot(*item, cache)
        if item.kind == "model" and not any(file for pattern in WEIGHTS for file in folder.glob(pattern)):
            raise UserError(f"{item.key}: {item.name!r} holds no safetensors at revision {item.revision!r}")
        files = [file for file in folder.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        revision = folder.name if item.revision == folder.name else f"{item.revision}, which is {folder.name}"
        print(f"{item.key}: {item.name} at {revision}")
        print(f"  {len(files)} files, {_readable(size)}, {_readable(to_load)} of it downloaded now")
        commits[item.key] = (item.revision, folder.name)
    _print_how_to_go_on(commits, Path(constants.HF_HOME) if cache is None else cache, cache_folder(cache))


def wanted(study: Study) -> list[Item]:
    """Lists what a study needs from the hub."""
    items = [
        Item(f"models.{name}.checkpoint", "model", model.checkpoint, model.revision or "main")
        for name, model in study.models.items()
        if model.on_hub and model.checkpoint is not None
    ]
    if study.data.kind == "hub":
        items.append(Item("data.source", "dataset", study.data.source, study.data.revision or "main"))
    return items


def _check_space(item: Item, needed: int, folder: Path) -> None:
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"{item.key}: {item.name!r} takes {_readable(needed)}, and the disk of {existing} has "
            f"{_readable(free)} left. Free some space, or name another folder: --cache FOLDER"
        )


def _print_how_to_go_on(commits: dict[str, tuple[str, str]], home: Path, hub_cache: Path) -> None:
    moving = {key: commit for key, (revision, commit) in commits.items() if revision != commit}
    if moving:
        print("\nA branch or a tag can move. To pin what was fetched, put into the config:")
        for key, commit in moving.items():
            print(f"  {key.rpartition('.')[0]}.revision: {commit}")
    print("\nFor jobs without a network:")
    print(f"  export HF_HOME={home}")
    if hub_cache != home / "hub":
        print(f"  export HF_HUB_CACHE={hub_cache}")
    print("  export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1")


def _readable(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
