"""Parse sizes such as 2GB, and tell how much memory is free."""

from __future__ import annotations

from pathlib import Path

from promptkit.errors import PromptkitError

_CGROUP = Path("/sys/fs/cgroup")


def parse_size(text: str | int) -> int:
    """Return the bytes that a size such as `2GB`, `512MiB` or `1000000` means; GB are 10^9 bytes, GiB 2^30.

    Raises PromptkitError for what is no size above 0.
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        size = TypeAdapter(ByteSize).validate_python(text)
    except (ValidationError, OverflowError):
        size = ByteSize(0)
    if not 1 <= size < 2**63:
        raise PromptkitError(f"memory {text!r} is not a size above 0; expected one such as 2GB, 512MiB or 800000000")
    return int(size)


def find_free(device: str) -> int:
    """Return how many bytes this process may still take on a torch device, before others or the system mind."""
    if device.startswith("cuda"):
        import torch

        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + idle)
    import psutil

    limits = [psutil.virtual_memory().available]
    most, now = _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")  # those of a container
    if most.strip().isdigit() and now.strip().isdigit():
        limits.append(max(1, int(most) - int(now)))
    return min(limits)


def choose_budget(memory: int | None, device: str) -> int:
    """Return the bytes that a piece of work may take: those asked for, else half of what is free."""
    return find_free(device) // 2 if memory is None else memory  # the other half: what else runs, and the allocator


def _read(path: Path) -> str:
    """Return a file of the system's; nothing where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
