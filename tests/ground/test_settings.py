"""Where things are kept, and what the machine can do."""

from __future__ import annotations

import json

import pytest

from danlu import hardware
from danlu.errors import MachineError
from danlu.hardware import Machine, available_memory, inspect_machine, machine_as_dict, memory_limit, physical_cores
from danlu.settings import Home, Settings


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DANLU_HOME", str(tmp_path))
    monkeypatch.setenv("DANLU_DATABASE_URL", "postgresql+psycopg://x/y")
    monkeypatch.setenv("DANLU_SOMETHING_ELSE", "1")
    settings = Settings()
    assert settings.home == tmp_path
    assert settings.database_url == "postgresql+psycopg://x/y"
    assert settings.log_level == "info"


def test_home_makes_its_folders_and_may_be_made_twice(tmp_path):
    home = Home(tmp_path / "a" / "b").make().make()
    made = sorted(path.name for path in home.root.iterdir())
    assert made == ["cache", "datasets", "logs", "models", "runs", "versions"]
    assert home.database == home.root / "danlu.db"


def test_a_home_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written") as caught:
        Home(tmp_path / "file").make()
    assert caught.value.where == str(tmp_path / "file")


def test_the_best_speed_of_a_machine_is_kept(tmp_path, monkeypatch):
    def machine(fp32: float, bf16: float) -> Machine:
        monkeypatch.setattr(hardware, "measure_gflops", lambda: {"float32": fp32, "bfloat16": bf16})
        return inspect_machine(tmp_path)

    assert machine(3.0, 4.0).fastest_dtype == "bfloat16"  # measured while something else worked
    assert machine(50.0, 20.0).gflops == {"float32": 50.0, "bfloat16": 20.0}
    assert machine(10.0, 21.0).gflops == {"float32": 50.0, "bfloat16": 21.0}
    assert inspect_machine().gflops == {"float32": 10.0, "bfloat16": 21.0}


@pytest.mark.parametrize("content", ["{", "[]", '{"key": "another processor", "gflops": {"float32": 1.0}}'])
def test_a_measurement_that_is_damaged_or_of_another_processor_is_made_again(tmp_path, monkeypatch, content):
    monkeypatch.setattr(hardware, "measure_gflops", lambda: {"float32": 50.0, "bfloat16": 20.0})
    (tmp_path / "machine.json").write_text(content, encoding="utf-8")
    assert inspect_machine(tmp_path).gflops["float32"] == 50.0
    assert json.loads((tmp_path / "machine.json").read_text(encoding="utf-8"))["gflops"]["bfloat16"] == 20.0


def test_the_speed_is_measured_in_both_formats():
    speeds = hardware.measure_gflops()
    assert set(speeds) == {"float32", "bfloat16"}
    assert all(speed > 0 for speed in speeds.values())


def test_the_machine_is_described_in_plain_values():
    assert 1 <= physical_cores() <= 4096
    assert 0 < available_memory() <= memory_limit()
    machine = Machine("cpu", 2, 10, 5, None, {"float32": 1.0, "bfloat16": 2.0})
    assert json.loads(json.dumps(machine_as_dict(machine)))["gflops"] == {"float32": 1.0, "bfloat16": 2.0}
    assert machine.fastest_dtype == "bfloat16"
