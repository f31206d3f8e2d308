"""One of several processes that train a run of a study together: ``torchrun -m`` this module."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from siamese.config.reading import build_settings, flatten
from siamese.errors import Diverged, UserError
from siamese.files.fields import parse_json
from siamese.files.places import read_bytes
from siamese.files.terminal import plain_output
from siamese.files.writing import write_json
from siamese.studies.expand import Run
from siamese.studies.running import TaskTrainer, train_alone
from siamese.studies.study import SETTINGS, TaskName


def main(path: str) -> int:
    """Train the run that a file describes; the first process writes how it ended.

    Returns:
        The exit code: 0 unless the run failed.
    """
    content: dict[str, Any] = parse_json(read_bytes(Path(path)))
    task: TaskName = content["task"]
    kind = SETTINGS[task]
    settings = build_settings(kind, flatten(kind, content["settings"]), path)
    run = Run(content["label"], content["seed"], settings, content["hash"], content["processes"])
    outcome = {"status": "done"}
    try:
        with plain_output():
            train_alone(run, TaskTrainer(task))
    except Diverged as error:
        outcome = {"status": "diverged", "message": str(error)}
    except UserError as error:
        outcome = {"status": "error", "message": str(error)}
    except KeyboardInterrupt:
        outcome = {"status": "interrupted"}
    if os.environ.get("RANK", "0") == "0":
        write_json(Path(content["outcome"]), outcome)
    return 0 if outcome["status"] == "done" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
