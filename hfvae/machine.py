"""What depends on the machine: its allocator, and the precision in which it is fast."""

import ctypes
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
