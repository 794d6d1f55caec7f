"""Chat templates for models that have none: base models, which have only ever read texts.

ChatML, unless something else is wished. Its end-of-turn token must be one token that every engine stops at, and a
vocabulary is not grown for it: ``<|im_end|>`` where the tokenizer has it as a token (Qwen's base models do), else the
token that ends a text, which every engine stops at anyway; the other marks are then ordinary text. The folder that is
written holds the tokenizer with the template and the ids to stop at, so that transformers, llama.cpp (through the GGUF
file) and servers such as vLLM all read the same. Not for models with a template of their own (``chat_format``).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import jinja2
import jinja2.sandbox

from danlu.errors import ModelError, RecipeError
from danlu.files import write_json, write_text
from danlu.models.load import TOKENIZER_FILES, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TemplateName = Literal["chatml", "plain"]
TEMPLATE_FILE: Final = "chat_template.jinja"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
_GENERATION: Final = "generation_config.json"

# The system turn is the first; {bos} is the tokenizer's own beginning of a text, where it writes one.
_CHATML: Final = (
    "{bos}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + {end} + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_PLAIN: Final = (
    "{bos}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User:\\n' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant:\\n' + message['content'] + {end} + '\\n\\n' }}"
    "{% else %}{{ raise_exception('this template knows system, user and assistant only') }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)
_TEMPLATES: Final[dict[TemplateName, str]] = {"chatml": _CHATML, "plain": _PLAIN}


@dataclass(frozen=True)
class GivenTemplate:
    """A template made for a tokenizer.

    Attributes:
        name: which one.
        end: id of the token that ends a turn.
        token: the same as text.
        marks: whether the template's own marks are tokens of the vocabulary, too.
    """

    name: TemplateName
    end: int
    token: str
    marks: bool


@dataclass(frozen=True)
class WrittenTemplate:
    """A template as it was written into a folder.

    Attributes:
        name: ``chatml``, ``plain``, or the file's name.
        token: what ends a turn; empty for a file, whose template says it itself.
    """

    name: str
    token: str = ""


def give_template(tokenizer: PreTrainedTokenizerBase, name: TemplateName) -> GivenTemplate:
    """Give a tokenizer a template, in memory; the one it may have is replaced.

    Raises:
        ModelError: it has no token that could end a turn.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    token = IM_END if name == "chatml" and IM_END in added else tokenizer.eos_token
    end = tokenizer.convert_tokens_to_ids(token) if token else None
    if end is None:
        raise ModelError("templates.no_end_token")
    bos = "{{ bos_token }}" if _begins_with_bos(tokenizer) else ""
    tokenizer.chat_template = (
        _TEMPLATES[name].replace("{bos}", bos).replace("{end}", json.dumps(token, ensure_ascii=False))
    )
    return GivenTemplate(name, end, token, marks=token == IM_END and IM_START in added)


def write_with_template(source: Path, folder: Path, wish: str) -> WrittenTemplate:
    """Write a tokenizer with a template into a folder, which every engine then reads.

    Args:
        source: folder of the tokenizer; may be ``folder`` itself.
        folder: it is made where it is not there.
        wish: ``chatml``, ``plain``, or the path of a Jinja template.

    Raises:
        RecipeError: there is no such file, or it is no Jinja template.
        ModelError: the tokenizer has no token that could end a turn, or the template writes none.
    """
    from danlu.models.chat_format import ChatFormat

    if source != folder:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*TOKENIZER_FILES, _GENERATION):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    if wish in _TEMPLATES:
        named: TemplateName = "chatml" if wish == "chatml" else "plain"
        tokenizer = load_tokenizer(folder)
        made = give_template(tokenizer, named)
        _write(folder, str(tokenizer.chat_template))
        _stop_at(folder, made.end, tokenizer.eos_token_id)
        return WrittenTemplate(named, made.token)
    _write(folder, read_template(Path(wish)))
    _ = ChatFormat.load(folder).end_of_turn  # refuses one that never ends a turn before anything is trained with it
    return WrittenTemplate(Path(wish).name)


def fit_template(base: Path, folder: Path, wish: str) -> WrittenTemplate | None:
    """Write the template of a run beside its tokenizer, where it is not the model's own.

    Args:
        base: folder of the base model.
        folder: where the run's tokenizer belongs; it may be there already, with new tokens.
        wish: ``auto``, ``chatml``, ``plain``, or the path of a Jinja template.

    Returns:
        What was written; None where the model keeps its own template, or the file has the same one, and nothing was.

    Raises:
        RecipeError: see ``write_with_template``.
        ModelError: see ``write_with_template``.
    """
    source = folder if folder.is_dir() else base
    if wish == "auto":
        if load_tokenizer(source).chat_template:
            return None
        wish = "chatml"
    elif wish not in _TEMPLATES and read_template(Path(wish)) == load_tokenizer(source).chat_template:
        return None
    return write_with_template(source, folder, wish)


def read_template(path: Path) -> str:
    """Read a Jinja template.

    Raises:
        RecipeError: there is no such file, or it is no Jinja template.
    """
    try:
        text = path.read_text(encoding="utf-8")
        jinja2.sandbox.ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
    except FileNotFoundError as error:
        raise RecipeError("templates.file_missing", "chat_template", value=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError("templates.file_unreadable", "chat_template", value=str(path), reason=str(error)) from error
    except jinja2.TemplateSyntaxError as error:
        place = f"{path}, {error.lineno}"
        raise RecipeError("templates.file_not_jinja", place, reason=str(error.message)) from error
    if not text.strip():
        raise RecipeError("templates.file_not_jinja", str(path), reason="")
    return text


def _write(folder: Path, template: str) -> None:
    """Write the template where every program looks for it: in its file, and nowhere else."""
    write_text(folder / TEMPLATE_FILE, template)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if config.pop("chat_template", None) is not None:
        write_json(path, config)


def _stop_at(folder: Path, end: int, eos: int | None) -> None:
    """Name the ids that end an answer where transformers and vLLM look for them."""
    path = folder / _GENERATION
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    stated = config.get("eos_token_id")
    known = stated if isinstance(stated, list) else [eos if stated is None else stated]
    ids = list(dict.fromkeys(index for index in (end, *known) if index is not None))
    write_json(path, {**config, "eos_token_id": ids if len(ids) > 1 else ids[0]})


def _begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer writes its beginning-of-text token before every text by itself."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("a")["input_ids"]
    return len(whole) > len(bare) and whole[0] == tokenizer.bos_token_id
