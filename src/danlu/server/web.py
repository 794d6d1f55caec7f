"""The web application's files; every address that it routes itself gets its first page."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Final

from fastapi import APIRouter, Request
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from danlu.i18n import LANGUAGES, t

router = APIRouter(include_in_schema=False)

STATIC: Final = Path(str(files("danlu.server"))) / "static"
# Names in assets/ carry a hash of their content.
_FOREVER: Final = "public, max-age=31536000, immutable"


class _PageConvertor(Convertor[str]):
    """Any path outside of what programs ask; there a wrong address must not get a page."""

    regex = "(?!(?:api|v1|ws|answer)(?:/|$)).*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("page", _PageConvertor())


@router.api_route("/{path:page}", methods=["GET", "HEAD"])
async def page(path: str, request: Request) -> Response:
    """Return a file of the web application, or its first page for an address such as ``/c/ID``."""
    return await serve_page(STATIC, path, request)


async def serve_page(static: Path, path: str, request: Request) -> Response:
    """Return the file ``path`` under ``static``, or the first page.

    Raises:
        HTTPException: 404, it looks like a file but is none.
    """
    parts = PurePosixPath(path).parts
    if not (static / "index.html").is_file():
        text = "\n\n".join(t("server.web_missing", lang) for lang in LANGUAGES)
        return PlainTextResponse(text + "\n", status_code=503)
    room = StaticFiles(directory=static)
    looks_like_file = bool(parts) and "." in parts[-1]
    name = path if looks_like_file or (parts and parts[0] == "assets") else "index.html"
    response = await room.get_response(room.get_path({**request.scope, "path": f"/{name}"}), request.scope)
    response.headers["Cache-Control"] = _FOREVER if parts and parts[0] == "assets" else "no-cache"
    return response
