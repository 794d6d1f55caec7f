"""``danlu data expand``, ``from-docs`` and ``review``: a model writes rows, a person decides about each of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from danlu.cli.common import HomeOption, JsonOption, console, home_of, print_json, results
from danlu.cli.data_report import made_bar
from danlu.cli.data_review import review
from danlu.cli.versions import version_for
from danlu.data.conversations import Conversation
from danlu.data.datasets import DatasetLibrary
from danlu.data.making.judging import REASONS, Judge
from danlu.data.making.papers import Paper, papers_under, read_paper
from danlu.data.making.passages import Passage, passages_of
from danlu.data.making.review import lines_of_rows
from danlu.data.making.tasks import (
    DECLINE_SHARE,
    LEAST_DECLINES,
    RowTasks,
    Task,
    Wanted,
    tasks_of_passages,
    tasks_of_rows,
    usual_decline,
)
from danlu.errors import DataError, UsageError
from danlu.files import write_text
from danlu.i18n import t
from danlu.jobs.expanding import Journal, Made, make_rows, write_made
from danlu.serving.served import ServedModel
from danlu.serving.writing import Writer, foreign_writer, local_writer, stays_in_the_house
from danlu.settings import Home

_SEED: Final = 42
_SHOWN: Final = 160
_KEY_VARIABLE: Final = "DANLU_ENGINE_KEY"

OutOption = Annotated[Path, typer.Option("--out", metavar="FILE.jsonl", help=t("making.opt_out"))]
ModelOption = Annotated[str | None, typer.Option("--model", metavar="MODEL|RUN", help=t("making.opt_model"))]
EndpointOption = Annotated[str | None, typer.Option("--endpoint", metavar="URL", help=t("making.opt_endpoint"))]
EndpointModelOption = Annotated[
    str | None, typer.Option("--endpoint-model", metavar="NAME", help=t("making.opt_endpoint_model"))
]
KeyOption = Annotated[str, typer.Option("--key-variable", metavar="VAR", help=t("making.opt_key"))]
SendOption = Annotated[bool, typer.Option("--send-rows", help=t("making.opt_send"))]
ParallelOption = Annotated[int, typer.Option("--parallel", min=1, max=64, help=t("making.opt_parallel"))]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help=t("making.opt_seed"))]
ResumeOption = Annotated[bool, typer.Option("--resume", help=t("making.opt_resume"))]


@dataclass(frozen=True)
class _Way:
    """How the model is asked, and where the rows go."""

    home: Home
    out: Path
    model: str | None
    endpoint: str | None
    endpoint_model: str | None
    key_variable: str
    send: bool
    parallel: int
    seed: int
    resume: bool

    @property
    def by(self) -> str:
        """The model's name in the rows."""
        return str(self.endpoint_model if self.endpoint else self.model)

    @property
    def journal(self) -> Path:
        """Where it is noted what was asked and what came of it."""
        return self.out.with_suffix(".making.jsonl")

    def require_clear(self) -> None:
        """Check that one model is named, and that nothing is written over.

        Raises:
            UsageError: neither or both ways to ask are named, or the file is there.
        """
        if (self.model is None) == (self.endpoint is None) or (self.endpoint and not self.endpoint_model):
            raise UsageError("making.which_model")
        _require_new(self.out)

    def require_leave(self, rows: int) -> None:
        """Check that rows may be sent to a server outside of the house.

        Raises:
            UsageError: nobody has said so.
        """
        if self.endpoint is None or self.send or stays_in_the_house(self.endpoint):
            return
        if not sys.stdin.isatty():
            raise UsageError("making.rows_leave", self.endpoint, rows=rows)
        typer.confirm(t("making.ask_leave", url=self.endpoint, rows=rows), abort=True, err=True)

    def writer(self) -> AbstractAsyncContextManager[Writer]:
        """Return what asks the model; one of this machine is made ready first."""
        if self.endpoint is not None:
            return foreign_writer(self.endpoint, str(self.endpoint_model), self.key_variable, self.parallel)
        version = version_for(self.home, str(self.model))
        log = self.home.logs / "making.log"
        return local_writer(
            ServedModel.from_version(self.home.versions / version.id, engine="llamacpp", slots=self.parallel, log=log)
        )


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("expand", help=t("making.expand"))(expand)
    app.command("from-docs", help=t("making.from_docs"))(from_docs)
    app.command("review", help=t("making.review"))(review)


def expand(
    file: Annotated[str, typer.Argument(metavar="FILE|NAME", help=t("cli.arg_data"))],
    out: OutOption,
    model: ModelOption = None,
    endpoint: EndpointOption = None,
    endpoint_model: EndpointModelOption = None,
    key_variable: KeyOption = _KEY_VARIABLE,
    paraphrases: Annotated[int, typer.Option("--paraphrases", min=0, max=50, help=t("making.opt_paraphrases"))] = 3,
    variations: Annotated[int, typer.Option("--variations", min=0, max=50, help=t("making.opt_variations"))] = 1,
    declines: Annotated[int | None, typer.Option("--declines", min=0, max=1000, help=t("making.opt_declines"))] = None,
    decline_answer: Annotated[
        str | None, typer.Option("--decline-answer", metavar="TEXT", help=t("making.opt_decline_answer"))
    ] = None,
    send: SendOption = False,
    parallel: ParallelOption = 4,
    seed: SeedOption = _SEED,
    resume: ResumeOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a model write more rows like those that there are."""
    folder = home_of(home)
    way = _Way(folder, out, model, endpoint, endpoint_model, key_variable, send, parallel, seed, resume)
    way.require_clear()
    dataset = DatasetLibrary(folder.datasets).open(file)
    rows = list(dataset.conversations)
    if dataset.kind != "conversations" or not rows:
        raise DataError("making.no_conversations", file)
    wanted = Wanted(paraphrases, variations, _declines(declines, len(rows)))
    decline = _decline_answer(rows, wanted.declines, decline_answer, asked=declines is not None)
    planned = tasks_of_rows(rows, wanted, decline)
    _say_left_alone(planned)
    if not planned.tasks:
        raise DataError("making.nothing_to_do", file)
    way.require_leave(len(rows))
    made = _make(way, planned.tasks, Judge(item.question for item in rows))
    left_alone = {
        "several_turns": planned.several_turns, "with_tools": planned.with_tools, "reasoned": planned.reasoned,
        "made_already": planned.made,
    }  # fmt: skip
    _tell(way, made, left_alone, as_json=as_json)


def from_docs(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE|FOLDER…", help=t("making.arg_documents"))],
    out: OutOption,
    purpose: Annotated[str, typer.Option("--for", metavar="pretrain|drafts", help=t("making.opt_for"))] = "pretrain",
    length: Annotated[int, typer.Option("--passage-tokens", min=50, max=100_000, help=t("making.opt_length"))] = 400,
    questions: Annotated[int, typer.Option("--questions", min=1, max=20, help=t("making.opt_questions"))] = 3,
    model: ModelOption = None,
    endpoint: EndpointOption = None,
    endpoint_model: EndpointModelOption = None,
    key_variable: KeyOption = _KEY_VARIABLE,
    send: SendOption = False,
    parallel: ParallelOption = 4,
    seed: SeedOption = _SEED,
    resume: ResumeOption = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cut documents into passages: texts to learn from as they are, or drafts of questions and answers."""
    if purpose not in {"pretrain", "drafts"}:
        raise UsageError("making.unknown_purpose", purpose=purpose)
    folder = home_of(home)
    way = _Way(folder, out, model, endpoint, endpoint_model, key_variable, send, parallel, seed, resume)
    if purpose == "drafts":
        way.require_clear()
    else:
        _require_new(out)
    papers = [(path.name, read_paper(path)) for path in papers_under(paths)]
    passages: list[Passage] = []
    for name, paper in papers:
        passages += passages_of(name, paper.blocks, length, len(passages) + 1)
    _say_read([paper for _, paper in papers], len(passages))
    if purpose == "drafts":
        way.require_leave(len(passages))
        made = _make(way, tasks_of_passages(passages, questions), Judge(()))
        _tell(way, made, {"documents": len(papers), "passages": len(passages)}, as_json=as_json)
        return
    write_text(out, lines_of_rows([_text_row(passage) for passage in passages]))
    if as_json:
        counts = {
            name: sum(getattr(paper, name) for _, paper in papers) for name in ("pages", "empty_pages", "repeated")
        }
        print_json({"out": str(out), "documents": len(papers), "passages": len(passages), **counts})
    else:
        results.print(escape(t("making.texts_at", passages=len(passages), out=out)), soft_wrap=True)


def _make(way: _Way, tasks: Sequence[Task], judge: Judge) -> Made:
    """Let the model do the tasks; what was done before an interruption stays in the journal."""
    with Journal(way.journal, tasks, way.by, resume=way.resume) as journal, made_bar() as advance:

        async def run() -> Made:
            async with way.writer() as writer:
                return await make_rows(
                    tasks, judge, writer, journal, by=way.by, seed=way.seed, parallel=way.parallel, advance=advance
                )

        made = asyncio.run(run())
    write_made(way.out, made)
    return made


def _tell(way: _Way, made: Made, counted: dict[str, int], *, as_json: bool) -> None:
    kinds = {kind: sum(row["made"]["kind"] == kind for row in made.rows) for kind in _kinds(made)}
    if as_json:
        print_json({
            "out": str(way.out), "by": way.by, "rows": len(made.rows), "kinds": kinds, "asked": made.asked,
            "turned_down": dict(made.turned_down), "short": made.short, "missing": made.missing, **counted,
            "journal": str(way.journal),
        })  # fmt: skip
        return
    results.print(t("making.made", rows=len(made.rows), asked=made.asked, by=escape(way.by)), soft_wrap=True)
    for kind, count in kinds.items():
        results.print("  " + t(f"making.kind_{kind}", count=count))
    for reason in REASONS:
        if made.turned_down[reason]:
            results.print("  " + t(f"making.not_{reason}", count=made.turned_down[reason]), soft_wrap=True)
            for told, question, answer in made.examples:
                if told == reason:
                    results.print(f"    {escape(_short(question))} → {escape(_short(answer))}", style="dim")
                    break
    if made.missing:
        results.print(t("making.short", tasks=made.short, rows=made.missing), soft_wrap=True)
    if made.rows:
        console.print(escape(t("making.review_next", out=way.out)), soft_wrap=True)
    console.print(escape(t("making.journal_at", journal=way.journal)), style="dim", soft_wrap=True)


def _kinds(made: Made) -> list[str]:
    return list(dict.fromkeys(str(row["made"]["kind"]) for row in made.rows))


def _declines(asked: int | None, rows: int) -> int:
    return max(LEAST_DECLINES, round(DECLINE_SHARE * rows)) if asked is None else asked


def _decline_answer(rows: Sequence[Conversation], count: int, given: str | None, *, asked: bool) -> str | None:
    """Return how questions are declined; None where none are to be.

    Raises:
        UsageError: some were asked for, and nobody has said how.
    """
    if count == 0:
        return None
    answer = given or usual_decline(rows)
    if answer is None and asked:
        raise UsageError("making.no_decline_answer")
    console.print(escape(t("making.declines_with" if answer else "making.no_declines", answer=answer)), soft_wrap=True)
    return answer


def _say_left_alone(planned: RowTasks) -> None:
    for key, count in (
        ("making.several_turns", planned.several_turns), ("making.with_tools", planned.with_tools),
        ("making.reasoned", planned.reasoned), ("making.made_already", planned.made),
    ):  # fmt: skip
        if count:
            console.print(t(key, count=count), soft_wrap=True)


def _say_read(papers: Sequence[Paper], passages: int) -> None:
    pages, empty = sum(paper.pages for paper in papers), sum(paper.empty_pages for paper in papers)
    console.print(t("making.read", documents=len(papers), passages=passages), soft_wrap=True)
    if empty:
        console.print(t("making.empty_pages", empty=empty, pages=pages), soft_wrap=True)
    repeated = sum(paper.repeated for paper in papers)
    if repeated:
        console.print(t("making.repeated", lines=repeated), soft_wrap=True)


def _text_row(passage: Passage) -> dict[str, object]:
    row: dict[str, object] = {"text": passage.text, "source": passage.file}
    if passage.headings:
        heading = " / ".join(passage.headings)
        row |= {"text": f"{heading}\n\n{passage.text}", "heading": heading}
    return row | ({"page": passage.page} if passage.page is not None else {})


def _require_new(out: Path) -> None:
    """Check that a file can be written and is not there.

    Raises:
        UsageError: it is there, is no ``.jsonl``, or its folder is missing.
    """
    if out.exists():
        raise UsageError("making.out_exists", str(out))
    if out.suffix != ".jsonl":
        raise UsageError("making.out_suffix", str(out))
    if not out.absolute().parent.is_dir():
        raise UsageError("cli.label_out_folder", str(out), folder=out.absolute().parent)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
