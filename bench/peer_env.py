"""Sets a peer up in a virtual environment of its own, step by step; a step that is done is not done again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LLAMAFACTORY = "0.9.5"
TRL = "1.16.0"
TORCH = "2.13.0"
# What both of TRL's side and Danlu's compute with, as in constraints.txt.
_TRL_WITH = ("transformers==5.23.*", "peft==0.21.*", "accelerate==1.15.*", "datasets==5.2.*")
_STATE = "bench-setup.json"
_TORCHAUDIO = '"""Stands in for torchaudio, which LLaMA-Factory imports and text models do not need."""\n'


Program = Literal["llamafactory", "trl"]
VERSIONS: dict[Program, str] = {"llamafactory": LLAMAFACTORY, "trl": TRL}


@dataclass(frozen=True)
class PeerEnv:
    """A virtual environment with a peer in it.

    Attributes:
        program: what is in it.
        folder: the environment.
        setup_seconds: how long setting it up took, all steps together.
        versions: versions of the libraries that decide the speed.
    """

    program: Program
    folder: Path
    setup_seconds: float
    versions: dict[str, str]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def cli(self) -> Path:
        """LLaMA-Factory's command."""
        return self.python.with_name("llamafactory-cli" + (".exe" if os.name == "nt" else ""))


def set_up(program: Program, envs: Path, say: Callable[[str], None]) -> PeerEnv:
    """Return a peer's environment under ``envs``, made or finished if it is not there yet.

    ``TORCH_INDEX`` names the package index with the CPU build of PyTorch where pip is not set up for it already, as
    in the Makefile.

    Raises:
        subprocess.CalledProcessError: a step failed; the next call goes on with it.
    """
    folder = envs / f"{program}-{VERSIONS[program]}"
    env = PeerEnv(program, folder, 0.0, {})
    state_file = folder / _STATE
    seconds: dict[str, float] = json.loads(state_file.read_text(encoding="utf-8")) if state_file.is_file() else {}
    for name, step in _steps(env):
        if name in seconds:
            continue
        say(f"set-up of {program} {VERSIONS[program]}: {name}")
        start = time.perf_counter()
        step()
        seconds[name] = round(time.perf_counter() - start, 1)
        state_file.write_text(json.dumps(seconds, indent=2) + "\n", encoding="utf-8")
    return PeerEnv(program, folder, round(sum(seconds.values()), 1), _versions(env))


def _steps(env: PeerEnv) -> list[tuple[str, Callable[[], None]]]:
    def make() -> None:
        if not env.python.exists():
            _run(sys.executable, "-m", "venv", str(env.folder))

    def torch() -> None:
        index = os.environ.get("TORCH_INDEX")
        _pip(env, "install", f"torch=={TORCH}", *(("--index-url", index) if index else ()))

    def llamafactory() -> None:
        # Named again so that pip, choosing a torchvision, does not exchange torch for one that fits it.
        _pip(env, "install", f"torch=={TORCH}", f"llamafactory=={LLAMAFACTORY}")

    def without_vision_and_audio() -> None:
        _pip(env, "uninstall", "--yes", "torchvision", "torchaudio")
        module = _site_packages(env) / "torchaudio"
        shutil.rmtree(module, ignore_errors=True)
        module.mkdir()
        (module / "__init__.py").write_text(_TORCHAUDIO, encoding="utf-8")

    def starts() -> None:
        _run(str(env.cli), "version")

    def trl() -> None:
        _pip(env, "install", f"torch=={TORCH}", f"trl=={TRL}", *_TRL_WITH)

    def trl_starts() -> None:
        _run(str(env.python), "-c", "from trl import SFTTrainer")

    if env.program == "trl":
        return [
            ("environment", make),
            (f"torch {TORCH}", torch),
            (f"trl {TRL}", trl),
            ("first start", trl_starts),
        ]
    return [
        ("environment", make),
        (f"torch {TORCH}", torch),
        (f"llamafactory {LLAMAFACTORY}", llamafactory),
        ("without torchvision and torchaudio", without_vision_and_audio),
        ("first start", starts),
    ]


def _pip(env: PeerEnv, *words: str) -> None:
    _run(str(env.python), "-m", "pip", "--quiet", "--disable-pip-version-check", *words)


def _run(*command: str) -> None:
    """Run a command of the set-up; what it prints goes to stderr, because stdout belongs to the result."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def _site_packages(env: PeerEnv) -> Path:
    return Path(_ask(env, "import sysconfig; print(sysconfig.get_path('purelib'))"))


def _versions(env: PeerEnv) -> dict[str, str]:
    names = (env.program, "torch", "transformers", "peft", "accelerate", "datasets")
    code = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
    versions: dict[str, str] = json.loads(_ask(env, code))
    return versions


def _ask(env: PeerEnv, code: str) -> str:
    return subprocess.run([env.python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
