"""Threads, determinism, memory and the GPU of this process, set before a stage runs."""

from __future__ import annotations

import os
import platform
import warnings

from alignet.config import RuntimeSettings
from alignet.runtime.distributed import current


def set_up(runtime: RuntimeSettings, together: bool = False) -> None:
    """Threads, determinism and this process's device, for every stage alike; together: all processes call this."""
    import torch

    keep_freed_memory()
    torch.set_num_threads(runtime.threads)
    _limit_blas(runtime.threads)
    # read when the first CUDA context is made; without it cuBLAS may differ from run to run
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if runtime.compile:
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:  # the same without torch.compile's part, whose import takes longer than torch's own
        torch._C._set_deterministic_algorithms(True, warn_only=True)
    # of a GPU's attention: results are equal to the byte on CPUs alone; and of a thread's first product on a GPU
    for message in (".*defaults to a non-deterministic algorithm", ".*there was no current CUDA context"):
        warnings.filterwarnings("ignore", message=message)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if runtime.device == "cuda":
        _choose_gpu()
    if together:
        current().use(runtime.device)


def _limit_blas(threads: int) -> None:
    """numpy's and scipy's BLAS too, whether loaded or not yet: by themselves they take every core there is."""
    from threadpoolctl import threadpool_limits

    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(threads)  # read when a library is loaded
    threadpool_limits(threads)


def _choose_gpu() -> None:
    """Make `cuda` this process's own GPU: the one of its number on this machine."""
    import torch

    if not torch.cuda.is_available():
        raise ValueError("runtime.device: expected a CUDA device, found none; set runtime.device=cpu")
    found, needed = torch.cuda.device_count(), current().local_size
    if found < needed:
        raise ValueError(
            f"runtime.device: expected a GPU for each of {needed} processes on {platform.node()}, found {found}; start "
            f"fewer processes (torchrun --nproc-per-node, runtime.processes)"
        )
    torch.cuda.set_device(current().local_rank)


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed instead of mapping and zeroing new pages in every step.

    Measured on a convolutional network of 48 images a step: 2.5 s without, 1.6 s with. Other C libraries have
    no mallopt and are left alone.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX: other threads' own arenas would go on giving back
        no_mmap, no_trim, one_arena = (-4, 0), (-1, 2**31 - 1), (-8, 1)
        for option in (no_mmap, no_trim, one_arena):
            mallopt(*option)
