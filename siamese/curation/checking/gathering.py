"""Facts of all files of a folder: from the cache where they are known, else read in parallel."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from siamese.curation.checking.facts import FactStore, FileKey
from siamese.curation.checking.inspection import FileFacts, inspect_file
from siamese.curation.checking.picture_findings import FoundFile
from siamese.curation.checking.watched import work_watched

PATIENCE = 120.0
"""Seconds that one file may take."""


def gather_facts(
    root: Path,
    files: Sequence[FoundFile],
    store: FactStore,
    *,
    workers: int,
    inspect: Callable[[str], FileFacts] = inspect_file,
    patience: float = PATIENCE,
) -> dict[str, FileFacts]:
    """Facts by path relative to the root, in the order of the files.

    Facts are written as they come: an interrupted run has kept them.

    Args:
        root: the folder.
        files: what is in it.
        store: the cache.
        workers: processes; 0: this one.
        inspect: reads a file.
        patience: seconds for one file.
    """
    base = os.path.abspath(root)
    keys = [FileKey(os.path.join(base, file.path), file.modified, file.size) for file in files]
    known = store.known(keys)
    missing = [key for key in keys if key.path not in known]
    work = work_watched(
        [key.path for key in missing],
        inspect,
        partial(FileFacts, "failed"),
        workers=workers,
        patience=patience,
    )
    with tqdm(
        desc="reading pictures", total=len(missing), unit="img", disable=None, leave=False
    ) as bar:
        try:
            for at, facts in work:
                key = missing[at]
                known[key.path] = facts
                if facts.lasting:
                    store.add(key, facts)
                bar.update()
        finally:
            work.close()
            store.write()
    return {file.path: known[key.path] for file, key in zip(files, keys, strict=True)}
