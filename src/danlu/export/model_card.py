"""The model card that lies beside every export: what it is, what it learned from, how far it agrees, how to run it.

Written from the run's own facts; no row of the data is in it. The front matter is the one that model hubs read. Not for
the proof's report, which has the answers themselves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from danlu.i18n import t
from danlu.models.versions import Agreement, DatasetRef, ProofSummary

CARD_FILE: Final = "README.md"
_LIBRARIES: Final = {"merged": "transformers", "adapter": "peft"}
_TAGS: Final = {"merged": "merged", "gguf": "gguf", "ollama": "gguf", "adapter": "lora", "adapter-gguf": "lora"}


@dataclass(frozen=True)
class CardFacts:
    """What a run has to say of itself.

    Attributes:
        name: of what is exported.
        base: name of the base model.
        base_source: where it came from: ``hf:…``, ``modelscope:…``, ``pypi:…``, ``folder:…``; None when not known.
        licence: SPDX identifier of the base's licence; None when not known.
        run: the run; None for a base model that was not trained.
        datasets: what was learned.
        rows: how many of their rows were learned.
        method: what was trained.
        settings: names and values of the main settings.
        loss_before: held-out loss before; None when nothing was kept aside.
        loss_after: held-out loss after.
        proof: the probes; None without a proof.
    """

    name: str
    base: str
    base_source: str | None = None
    licence: str | None = None
    run: str | None = None
    datasets: tuple[DatasetRef, ...] = ()
    rows: int = 0
    method: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    loss_before: float | None = None
    loss_after: float | None = None
    proof: ProofSummary | None = None


def model_card(
    facts: CardFacts, kind: str, files: Sequence[str], agreement: Agreement | None, *, system: str, quant: str
) -> str:
    """Return the card, Markdown with front matter, in the language in force.

    Args:
        facts: of the run.
        kind: ``merged``, ``gguf``, ``adapter``, ``adapter-gguf`` or ``ollama``.
        files: names in the folder.
        agreement: how far the export agrees with its source; None for an adapter, which is the source.
        system: the system prompt that was trained with; empty for none.
        quant: storage type of a GGUF.
    """
    weights = next((name for name in files if name.endswith(".gguf")), "")
    parts = [_front_matter(facts, kind), f"# {facts.name}", _what(facts, kind, quant)]
    if facts.run is not None:
        parts += [f"## {t('card.learned')}", _learned(facts)]
    results = _results(facts, agreement)
    if results:
        parts += [f"## {t('card.results')}", results]
    parts += [
        f"## {t('card.use')}",
        t(f"card.use_{_key(kind)}", base=facts.base, weights=weights, name=facts.name).strip(),
    ]
    parts += [f"## {t('card.system')}", _quoted(system) if system else t("card.no_system")]
    parts += [f"## {t('card.limits')}", t("card.limits_text").strip()]
    return "\n\n".join(parts) + "\n"


def _key(kind: str) -> str:
    return kind.replace("-", "_")


def _front_matter(facts: CardFacts, kind: str) -> str:
    source = (facts.base_source or "").partition(":")
    fields: dict[str, Any] = {
        "base_model": source[2] if source[0] in {"hf", "modelscope"} else facts.base,
        "library_name": _LIBRARIES.get(kind, "gguf"),
        "pipeline_tag": "text-generation",
        "tags": ["danlu", _TAGS[kind]],
    }
    if facts.licence is not None:
        # Hubs know SPDX identifiers, in lower case; a licence with a name of its own is "other".
        named = " " in facts.licence
        fields["license"] = "other" if named else facts.licence.lower()
        if named:
            fields["license_name"] = facts.licence
    return f"---\n{yaml.safe_dump(fields, allow_unicode=True, sort_keys=False)}---"


def _what(facts: CardFacts, kind: str, quant: str) -> str:
    form = t(f"card.kind_{_key(kind)}", quant=quant.upper())
    source = f" ({facts.base_source})" if facts.base_source else ""
    key = "card.about" if facts.run is not None else "card.about_base"
    licence = t("card.licence", licence=facts.licence) if facts.licence else t("card.licence_unknown")
    return f"{t(key, base=facts.base, source=source, form=form)} {licence}"


def _learned(facts: CardFacts) -> str:
    lines = [t("card.run", run=facts.run, method=facts.method, rows=facts.rows), ""]
    lines += [f"- {t('card.dataset', name=d.name, version=d.version, sha256=d.sha256)}" for d in facts.datasets]
    lines += ["", f"| {t('card.setting')} | {t('card.value')} |", "|---|---|"]
    lines += [f"| `{name}` | {value} |" for name, value in facts.settings]
    return "\n".join(lines)


def _results(facts: CardFacts, agreement: Agreement | None) -> str:
    lines = []
    if facts.loss_before is not None and facts.loss_after is not None:
        lines.append(t("card.losses", before=facts.loss_before, after=facts.loss_after))
    if facts.proof is not None and facts.proof.probes_n:
        proof = facts.proof
        lines.append(t("card.probes", n=proof.probes_n, before=proof.pass_before, after=proof.pass_after))
    if agreement is not None:
        lines.append(t("card.agreement", **agreement.model_dump()))
    return "\n".join(f"- {line}" for line in lines)


def _quoted(text: str) -> str:
    """Return a text as a block that no character of it can end."""
    return "```json\n" + json.dumps(text, ensure_ascii=False) + "\n```"
