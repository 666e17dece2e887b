"""When, by what command and with what software an artifact was made."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from alignet.config import RuntimeSettings

LIBRARIES = (
    "torch",
    "timm",
    "open_clip_torch",
    "transformers",
    "faiss",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyro-ppl",
    "pillow",
    "safetensors",
)


def provenance(began: str, seconds: float, runtime: RuntimeSettings, processes: int) -> dict[str, Any]:
    """When, by what command and with what software an artifact was made."""
    return {
        "began": began,
        "seconds": round(seconds, 2),
        "command": " ".join(sys.argv),
        "git": _git_commit(),
        "versions": dict(_versions()),
        "machine": platform.machine(),
        "device": runtime.device,
        "threads": runtime.threads,
        "world_size": processes,
    }


@cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"alignet": version("alignet"), "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version("faiss-gpu" if name == "faiss" else name)
        except PackageNotFoundError:
            versions[name] = "faiss-cpu" if name == "faiss" else "absent"
    return versions


@cache
def _git_commit() -> str:
    """Of the code that this process runs: what is checked out later is not."""
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"
