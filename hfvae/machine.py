"""What depends on the machine: its allocator, and the precision in which it is fast."""

import ctypes
import os
import platform
from pathlib import Path

import torch
from torch import nn


def keep_freed_memory() -> None:
    """Let glibc keep freed memory: it would hand big activations back to the kernel every step.

    A third of a training step on a CPU is page faults otherwise. Linux with glibc only.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in [(-4, 0), (-1, 2**31 - 1), (-2, 256 << 20)]:
            mallopt(parameter, value)  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD


def give_back_large_memory() -> None:
    """Let the system have what is large as soon as it is freed, for a server that does little.

    glibc would keep more of it with every size that was freed once. Linux with glibc only.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD, which then stays


def give_back_memory() -> None:
    """Let the system have the memory that was freed: glibc keeps it for the threads that had it."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def threads_left() -> int:
    """How many threads to compute with: one for each core that other processes leave free.

    Two threads that wait for each other hundreds of times a step, while the system lets others run
    in between, are ten times slower than one. OMP_NUM_THREADS decides where it is set, and takes
    no time.
    """
    import psutil

    most = torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ or most == 1:
        return most
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    busy = psutil.cpu_percent(interval=1.0, percpu=True)
    free = sum(1 - share / 100 for i, share in enumerate(busy) if ours is None or i in ours)
    return max(1, min(most, round(free)))


def best_layout(model: nn.Module, device: torch.device) -> torch.memory_format:
    """channels_last, in which convolutions are faster; but on a CPU GroupNorm loses more than that.

    A training step of diffusers' AutoencoderKL takes 1.4 times as long in it.
    """
    grouped = any(isinstance(part, nn.GroupNorm) for part in model.modules())
    cpu = device.type == "cpu"
    return torch.contiguous_format if cpu and grouped else torch.channels_last


def best_precision() -> str:
    """bf16 where the hardware computes in it: recent GPUs, and CPUs with AVX-512 BF16 or AMX."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "no"
