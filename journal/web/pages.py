"""The console: plain files that the service itself serves, and nothing that comes from elsewhere.

The rule: what is served is known by name beforehand, and may run, show and ask only what this service serves.
"""

from hashlib import sha256
from importlib.resources import files

from aiohttp import web

from journal.errors import NotFound
from journal.service.answer import Answer
from journal.web import send
from journal.web.routing import Route

INDEX = "index.html"
DOCS = "docs.html"
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), "
    "magnetometer=(), microphone=(), midi=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
}


class Pages:
    """The handlers. The files are read once."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}
        for file in (files("journal.web") / "console").iterdir():
            media = MEDIA.get("." + file.name.rpartition(".")[2])
            if media is not None:
                body = file.read_bytes()
                self._answers[file.name] = Answer(media, body, sha256(body).hexdigest()[:24], coded={})

    def table(self) -> list[Route]:
        """Every route."""
        return [Route("GET", "/console", self.index, "nothing"), Route("GET", "/console/{file}", self.file, "nothing")]

    async def index(self, request: web.Request) -> web.StreamResponse:
        """GET /console: the page."""
        return await self._sent(request, INDEX)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """GET /console/…: what the page is made of."""
        return await self._sent(request, request.match_info["file"])

    async def _sent(self, request: web.Request, name: str) -> web.StreamResponse:
        return await send.answer(request, self.answer(name), headers=HEADERS)

    def answer(self, name: str) -> Answer:
        """A file by its name."""
        known = self._answers.get(name)
        if known is None:
            raise NotFound("the console has no such file")
        return known
