import keras
import pytest

from zoo.training.hardware import Device, device, environment, jit_compile, precision


@pytest.mark.parametrize(
    ("found", "policy"),
    [
        (Device("cpu", "a processor"), "float32"),
        (Device("gpu", "H200", capability=(9, 0)), "mixed_bfloat16"),
        (Device("gpu", "T4", capability=(7, 5)), "mixed_float16"),
        (Device("gpu", "P100", capability=(6, 0)), "float32"),
        (Device("tpu", "v4"), "mixed_bfloat16"),
    ],
)
def test_the_precision_follows_the_device_and_says_why(found, policy):
    name, reason = precision(found)
    assert name == policy
    assert reason


def test_a_processor_gets_no_xla():
    assert jit_compile(Device("cpu", "a processor")) is False
    assert jit_compile(Device("gpu", "H200", capability=(9, 0))) == "auto"


def test_the_environment_names_versions_and_device():
    found = environment()
    assert found["versions"]["keras"] == keras.__version__
    assert found["device"]["kind"] == device().kind
    assert found["cores"] >= 1
