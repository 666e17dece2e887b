"""Files of tensors that others may read where the umask says so: safetensors 0.8 writes for the file's owner alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """`safetensors.torch.save_file`, with the mode that any new file of this process has."""
    from safetensors.torch import save_file

    mode = new_file_mode(path)
    save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    os.chmod(path, mode)


def new_file_mode(path: Path) -> int:
    """The permission bits of a new file at a path, which is there and empty afterwards unless it was there before."""
    path.unlink(missing_ok=True)
    path.touch()
    return path.stat().st_mode & 0o777
