"""Asks another tool in a process of its own, so that its libraries and settings cannot touch ours."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

QUIET = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def ask(program: str, folder: Path, asked: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Run a program of this folder on a model's folder.

    Args:
        program: its file name; called with the model's folder, a request (JSON) and a file for the answer.
        folder: the model; request and answer are written there too.
        asked: the request.

    Returns:
        The arrays of the answer (npz).
    """
    request, answer = folder / "request.json", folder / "answer.npz"
    request.write_text(json.dumps(asked), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name(program), folder, request, answer],
        env={**os.environ, **QUIET}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(answer, allow_pickle=False) as archive:
        return dict(archive)
