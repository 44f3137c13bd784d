"""/docs: the OpenAPI document as a page that asks the server, and the document itself.

The page is Swagger UI, whose two files lie in `swagger_ui/`: it loads nothing from elsewhere, and its Content-Security-
Policy lets it load and ask nothing else either. All links are relative, so the page works behind any path prefix.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Sequence
from importlib.metadata import version
from importlib.resources import files

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from .endpoint import Endpoint
from .openapi import openapi_document

_SCRIPT, _STYLE, _START = "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/start.js"

DOCS_PATHS = ("/", "/docs", "/redoc", "/openapi.json", _SCRIPT, _STYLE, _START)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>zqserve</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

_START_SCRIPT = """"use strict";
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""

# Swagger UI shows images of data: URLs.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_routes(endpoints: Sequence[Endpoint], *, root_path: str, open_paths: Collection[str] | None) -> list[Route]:
    """The routes of the page; `endpoints` are what it describes. The other arguments are `openapi_document`'s."""

    @functools.cache
    def document() -> bytes:
        return msgspec.json.encode(
            openapi_document(endpoints, version=version("zqserve"), root_path=root_path, open_paths=open_paths)
        )

    async def openapi(request: Request) -> Response:
        return Response(await asyncio.to_thread(document), media_type="application/json")

    async def page(request: Request) -> Response:
        headers = {"content-security-policy": _CONTENT_SECURITY_POLICY, "x-content-type-options": "nosniff"}
        return Response(_PAGE, headers=headers, media_type="text/html")

    async def start(request: Request) -> Response:
        return Response(_START_SCRIPT, media_type="text/javascript")

    async def asset(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        headers = {"cache-control": "public, max-age=86400"}
        return Response(_asset(name), headers=headers, media_type=kind)

    async def to_docs(request: Request) -> Response:
        return RedirectResponse(f"{root_path}/docs")

    return [
        Route("/", to_docs),
        Route("/docs", page),
        Route("/redoc", to_docs),
        Route("/openapi.json", openapi),
        Route(_START, start),
        Route(_SCRIPT, asset),
        Route(_STYLE, asset),
    ]


@functools.cache
def _asset(name: str) -> bytes:
    return (files("zqserve.server") / "swagger_ui" / name).read_bytes()
