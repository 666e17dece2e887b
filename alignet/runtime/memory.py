"""How much memory this process may have: the machine's, or what a container or a job leaves of it; giving it back."""

from __future__ import annotations

import ctypes
import gc
import os
import re
from pathlib import Path


def memory_limit() -> int:
    """Bytes that this process may use in all: the machine's memory, or less where a control group says so."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *(limit for limit, _ in _groups())])


def memory_left() -> int:
    """Bytes that this process can still have, as far as this machine says."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        found = None
    free = int(found.group(1)) * 1024 if found else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([free, *(max(limit - used, 0) for limit, used in _groups())])


def give_back() -> None:
    """Give freed memory back to the system; glibc keeps it otherwise (see set_up in alignet/pipeline/)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _groups() -> list[tuple[int, int]]:
    """(limit, used) in bytes of every control group that this process is in and that has a limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = Path("/sys/fs/cgroup/memory"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = root / path.lstrip("/")
        for here in [folder, *folder.parents]:
            if here == root.parent:
                break
            try:
                limit, used = (int((here / name).read_text(encoding="ascii")) for name in names)
            except (OSError, ValueError):  # "max": no limit here
                continue
            found.append((limit, used))
    return found
