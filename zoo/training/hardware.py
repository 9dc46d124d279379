"""What the machine offers, and what a run should know of it: precision, compilation, versions."""

import contextlib
import os
import platform
from dataclasses import dataclass
from importlib import metadata

import keras

PACKAGES = ("menagerie", "keras", "tensorflow", "jax", "torch", "numpy", "pillow", "pandas")


@dataclass(frozen=True)
class Device:
    """Where a fit runs.

    Args:
        kind: "cpu", "gpu" or "tpu".
        name: The maker's name for it.
        count: How many there are.
        capability: CUDA compute capability, (0, 0) where that means nothing.
    """

    kind: str
    name: str
    count: int = 1
    capability: tuple[int, int] = (0, 0)


def device() -> Device:
    """The device that Keras' backend trains on."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_device()
    if backend == "jax":
        return _jax_device()
    return _processor()


def precision(found: Device) -> tuple[str, str]:
    """The dtype policy for a device, and why."""
    if found.kind == "tpu":
        return "mixed_bfloat16", "TPUs compute in bfloat16"
    if found.kind == "gpu" and found.capability >= (8, 0):
        return "mixed_bfloat16", f"{found.name} has tensor cores for bfloat16"
    if found.kind == "gpu" and found.capability >= (7, 0):
        return "mixed_float16", f"{found.name} has tensor cores for float16"
    return "float32", f"half precision does not pay on every network on a {found.kind}"


def jit_compile(found: Device) -> bool | str:
    """What `compile` gets: XLA is several times slower than the plain graph for convolutions on a processor."""
    return False if found.kind == "cpu" and keras.backend.backend() == "tensorflow" else "auto"


def environment() -> dict:
    """Versions, machine and device, as stored with a run."""
    found = device()
    return {**software(), "device": {"kind": found.kind, "name": found.name, "count": found.count}}


def software(*more: str) -> dict:
    """Versions and machine, told without waking a device.

    Args:
        more: Packages to name beside the usual ones.
    """
    versions = {}
    for package in (*PACKAGES, *more):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "backend": keras.backend.backend(),
        "versions": versions,
    }


def _processor() -> Device:
    return Device("cpu", platform.processor() or platform.machine())


def _tensorflow_device() -> Device:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return _processor()
    details = tf.config.experimental.get_device_details(gpus[0])
    return Device("gpu", details.get("device_name", "GPU"), len(gpus), details.get("compute_capability", (0, 0)))


def _jax_device() -> Device:
    import jax  # pyright: ignore[reportMissingImports]

    devices = jax.devices()
    kind = devices[0].platform
    if kind not in ("gpu", "tpu"):
        return _processor()
    major, _, minor = str(getattr(devices[0], "compute_capability", "0.0")).partition(".")
    return Device(kind, devices[0].device_kind, len(devices), (int(major), int(minor or 0)))
