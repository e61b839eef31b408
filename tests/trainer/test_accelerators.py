"""Devices that are asked for and are not there are refused before anything is read."""

import pytest
from lightning.pytorch.accelerators import CUDAAccelerator

from experiments.trainer.accelerators import check_accelerator, check_devices
from lightning_m2pt.errors import BadInputError, EnvironmentFailure, ExitCode
from lightning_m2pt.main import main
from tests.support.small_experiment import small_words


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: True))
    monkeypatch.setattr(CUDAAccelerator, "auto_device_count", staticmethod(lambda: 2))


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("devices", "named"), [(4, "GPU 2, counted from 0, is asked for, and 2 are here"), (["1", "2"], "GPU 2")]
)
@pytest.mark.parametrize("name", [None, "auto", "gpu", "cuda"])
def test_more_gpus_than_there_are_are_refused(name, devices, named) -> None:
    with pytest.raises(BadInputError, match=named) as refused:
        check_devices(name, devices, {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert "CUDA_VISIBLE_DEVICES is '0,1'" in refused.value.message()
    check_devices(name, 2, {})
    check_devices(name, ["0", "1"], {})
    check_devices(name, None, {})
    check_devices("cpu", 4, {})


@pytest.mark.usefixtures("two_gpus")
def test_a_process_is_given_one_instance_of_a_gpu() -> None:
    instances = {"CUDA_VISIBLE_DEVICES": "MIG-11111111-2222,MIG-33333333-4444"}
    check_devices("gpu", 1, instances)
    with pytest.raises(BadInputError, match="MIG"):
        check_devices("gpu", 2, instances)


def test_processors_have_no_numbers(capfd, tmp_path) -> None:
    words = [*small_words(tmp_path), "--trainer.devices", "2,3"]
    assert main(["fit", *words]) == ExitCode.BAD_INPUT
    assert "error: trainer.devices: 2, 3 are numbers of GPUs" in capfd.readouterr().err


def test_an_empty_list_of_visible_gpus_is_named() -> None:
    with pytest.raises(EnvironmentFailure, match="CUDA_VISIBLE_DEVICES is ''") as refused:
        check_accelerator("gpu", {"CUDA_VISIBLE_DEVICES": ""})
    assert len(refused.value.message().splitlines()) == 3
