"""What one machine gives each of several processes: how many they may be, their cores, their GPU."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

MEMORY = 3e9  # bytes that a worker is given: TensorFlow takes 0.7 GB before the first picture, a fit the rest
MOST = 8  # workers on one machine without GPUs: pictures come from one disk

# TensorFlow 2.21 heeds the first two in its kernels, though not in tf.data; JAX 0.10 the last one, and nothing that
# XLA_FLAGS says of threads.
THREADS = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NPROC",
)


def workers_for(*, gpus: int, cores: int, memory: float) -> int:
    """How many processes "auto" stands for: one for each GPU, else for each core that has `MEMORY`; 8 at most.

    Args:
        gpus: That can be seen.
        cores: Of the processor.
        memory: Bytes; 0 where they are not known, which then limit nothing.
    """
    if gpus:
        return gpus
    return max(1, min(cores, int(memory // MEMORY) if memory else MOST, MOST))


def worker_environment(
    slot: int, *, workers: int, gpus: Sequence[str], environment: Mapping[str, str]
) -> dict[str, str]:
    """The environment of the process in a slot: that of the parent, with its share of the cores and its GPU.

    Numbers of threads that the user has set are left as they are.

    Args:
        slot: From 0.
        workers: That share the machine.
        gpus: As `visible_gpus` names them.
        environment: The parent's.
    """
    share = dict.fromkeys(THREADS, str(max(1, cores() // workers)))
    if workers > len(gpus) > 0:  # several on a GPU, which a framework would take as a whole
        share |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    found = share | dict(environment)
    if gpus:
        found["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    if hasattr(keras := sys.modules.get("keras"), "config"):
        found["KERAS_BACKEND"] = keras.config.backend()  # which a configuration file or a script may have chosen
    here = str(Path(__file__).parents[1])
    places = [os.path.abspath(place) for place in [*sys.path, here] if isinstance(place, str)]
    found["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(places))
    return found


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, found without a framework, which would take hold of them."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in chosen.split(",")]
        end = next((k for k, name in enumerate(names) if not name or name.startswith("-")), len(names))
        return names[:end]  # CUDA stops at the first that it does not know, such as -1
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        done = subprocess.run(
            [command, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip().isdigit()]


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> float:
    """Bytes of memory, within what a container may use; 0 where the system does not tell."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return 0
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # "max", or no such file
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found
