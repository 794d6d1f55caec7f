"""The options that say how a file is read, shared by the commands that read one."""

from __future__ import annotations

from typing import Annotated

import typer

from danlu.i18n import t

FormatOption = Annotated[str, typer.Option("--format", metavar="F", help=t("cli.opt_row_format"))]
ColumnsOption = Annotated[
    list[str] | None, typer.Option("--columns", metavar="MEANING=COLUMN,…", help=t("cli.opt_columns"))
]
TagsOption = Annotated[list[str] | None, typer.Option("--tags", metavar="TAG=WORD,…", help=t("formats.opt_tags"))]
MergeOption = Annotated[bool, typer.Option("--merge-turns", help=t("formats.opt_merge_turns"))]
FillOption = Annotated[list[str] | None, typer.Option("--fill", metavar="NAME=VALUE", help=t("cli.opt_fill"))]
FillNoneOption = Annotated[bool, typer.Option("--fill-none", help=t("formats.opt_fill_none"))]
