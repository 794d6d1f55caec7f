"""Every key of LLaMA-Factory is accounted for, in both languages and in the manual."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from pydantic import BaseModel
from transformers import Seq2SeqTrainingArguments

from danlu.i18n import LANGUAGES, catalogue
from danlu.llamafactory import DIFFERENT, KEYS, Becomes, NotBuilt, NotNeeded
from danlu.llamafactory.keys import MARKS, SECRET
from danlu.recipe import Recipe
from scripts.llamafactory_table import PAGES, with_tables


def fields_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields_of(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_training_argument_of_transformers_is_known():
    assert {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)} - KEYS.keys() == set()


def test_marks_and_secrets_are_keys_and_no_mark_is_a_field_of_danlus():
    assert set(MARKS) | SECRET <= KEYS.keys()
    assert not set(MARKS) & Recipe.model_fields.keys()


def test_every_field_that_is_named_is_one_of_the_recipe():
    named = {key.field for key in KEYS.values() if isinstance(key, Becomes)} | set(DIFFERENT)
    assert named <= set(fields_of(Recipe))


def test_every_key_has_its_sentence_in_both_languages():
    for language in LANGUAGES:
        texts = catalogue(language)
        for name, key in KEYS.items():
            match key:
                case NotNeeded():
                    assert key.because in texts, name
                case NotBuilt():
                    assert key.instead in texts, name
                case Becomes():
                    assert key.note is None or key.note in texts, name


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_manual_lists_the_keys_as_they_are_read(language):
    page = PAGES[language].read_text(encoding="utf-8")
    assert page == with_tables(page, language), "run scripts/llamafactory_table.py"
