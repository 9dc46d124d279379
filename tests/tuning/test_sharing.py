"""How many processes a machine is good for, and what each gets of it."""

import pytest

from tuning.sharing import visible_gpus, worker_environment, workers_for


@pytest.mark.parametrize(
    ("gpus", "cores", "memory", "workers"),
    [
        (4, 2, 8e9, 4),
        (0, 2, 24e9, 2),
        (0, 16, 10e9, 3),
        (0, 64, 500e9, 8),
        (0, 4, 1e9, 1),
        (0, 4, 0, 4),
        (0, 64, 0, 8),
    ],
)
def test_auto_follows_gpus_then_cores_and_memory(gpus, cores, memory, workers):
    assert workers_for(gpus=gpus, cores=cores, memory=memory) == workers


def test_threads_that_the_user_chose_stay():
    found = worker_environment(0, workers=1, gpus=[], environment={"OMP_NUM_THREADS": "77"})
    assert found["OMP_NUM_THREADS"] == "77"


def test_each_worker_gets_a_gpu_of_its_own():
    def environments(workers, gpus):
        return [worker_environment(k, workers=workers, gpus=gpus, environment={}) for k in range(workers)]

    alone, shared = environments(2, ["0", "GPU-abc"]), environments(3, ["0", "1"])
    assert [found["CUDA_VISIBLE_DEVICES"] for found in alone] == ["0", "GPU-abc"]
    assert [found["CUDA_VISIBLE_DEVICES"] for found in shared] == ["0", "1", "0"]
    assert "TF_FORCE_GPU_ALLOW_GROWTH" not in alone[0]
    assert shared[0]["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


@pytest.mark.parametrize("environment", [{}, {"CUDA_VISIBLE_DEVICES": "-1"}])
def test_without_gpus_the_visible_devices_stay_as_they_are(environment):
    found = worker_environment(0, workers=1, gpus=[], environment=environment)
    assert found.get("CUDA_VISIBLE_DEVICES") == environment.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("chosen", "gpus"), [("", []), ("-1", []), ("3", ["3"]), ("GPU-a, 1", ["GPU-a", "1"]), ("0,-1,1", ["0"])]
)
def test_gpus_that_were_chosen_are_those_there_are(monkeypatch, chosen, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == gpus


@pytest.mark.parametrize(
    ("program", "gpus"),
    [
        ("echo 0; echo 1", ["0", "1"]),
        ("echo 'No devices were found'; exit 6", []),
        ("echo 'NVIDIA-SMI has failed' >&2; exit 9", []),
        (None, []),
    ],
)
def test_gpus_are_listed_by_the_driver(tmp_path, monkeypatch, program, gpus):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if program:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    assert visible_gpus() == gpus
