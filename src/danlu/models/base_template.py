"""A chat template for models that have none: base models, which have only gone on with texts so far.

ChatML unless a person gives another one. What ends a turn must be one token that every engine stops at: the
vocabulary's own ``<|im_end|>`` where it has one, else the token that ends texts; so no row is added to the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jinja2
import jinja2.sandbox

from danlu.errors import ModelError, RecipeError
from danlu.models.document_format import DocumentFormat
from danlu.models.load import TEMPLATE_FILE, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHATML: Final = "chatml"
_END_OF_TURN: Final = "<|im_end|>"


def chatml_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return ChatML as a template for a tokenizer, with a token of its own at the end of each turn.

    Raises:
        ModelError: the tokenizer has no token that ends anything.
    """
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    document = DocumentFormat.of(tokenizer)
    end = _END_OF_TURN if _END_OF_TURN in added else str(tokenizer.convert_ids_to_tokens(document.end))
    # What the tokenizer itself writes before a text (Llama's beginning-of-text) stands before a conversation too.
    begin = "" if document.start == (document.end,) else "".join(tokenizer.convert_ids_to_tokens(list(document.start)))
    return (
        (f"{{{{ {json.dumps(begin)} }}}}" if begin else "")
        + "{% for message in messages %}"
        + "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
        + f"{json.dumps(end)} + '\\n' }}}}"
        + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )


def template_for(folder: Path, wished: str) -> str | None:
    """Return the template that a run writes for a model; None where the model's own is used.

    Args:
        folder: the model's folder.
        wished: ``auto`` (the model's own, or ChatML where it has none), ``chatml``, or the path of a template.

    Raises:
        RecipeError: there is no such file, or it is no template.
        ModelError: the tokenizer is missing, or has no token that ends anything.
    """
    tokenizer = load_tokenizer(folder)
    if wished == "auto" and tokenizer.chat_template:
        return None
    if wished in {"auto", CHATML}:
        return chatml_template(tokenizer)
    path = Path(wished).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
        jinja2.sandbox.ImmutableSandboxedEnvironment().parse(text)
    except FileNotFoundError:
        raise RecipeError("models.template_missing", "chat_template", path=path) from None
    except (OSError, UnicodeDecodeError, jinja2.TemplateSyntaxError) as error:
        raise RecipeError("models.template_bad", str(path), reason=str(error)) from None
    return text


def write_template(folder: Path, template: str) -> None:
    """Put a template into a folder with a tokenizer, in place of any other.

    Raises:
        ModelError: the tokenizer's settings are damaged.
    """
    path = folder / "tokenizer_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ModelError("models.config_damaged", str(path), reason=str(error)) from error
    settings.pop("chat_template", None)
    path.write_text(json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (folder / TEMPLATE_FILE).write_text(template, encoding="utf-8")
