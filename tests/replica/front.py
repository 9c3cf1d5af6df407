"""What may stand between a replica and the service: it passes requests on, or answers some of them itself."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

Meddling = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
_NOT_PASSED_ON = {"host", "transfer-encoding", "content-length", "connection"}


@asynccontextmanager
async def front(service_url: str, meddle: Meddling, *, prefix: str = "") -> AsyncIterator[str]:
    """The URL under which the service is had through it. What `meddle` answers (None: nothing) is the answer."""

    async def passed(request: web.Request) -> web.StreamResponse:
        answer = await meddle(request) if request.path.startswith(prefix) else web.Response(status=404)
        if answer is not None:
            return answer
        place = service_url + request.path_qs.removeprefix(prefix)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON}
        asked: dict[str, Any] = {"headers": headers, "data": await request.read() or None, "allow_redirects": False}
        async with there.request(request.method, URL(place, encoded=True), **asked) as response:
            told = {name: value for name, value in response.headers.items() if name.lower() not in _NOT_PASSED_ON}
            passing = web.StreamResponse(status=response.status, headers=told)
            await passing.prepare(request)
            async for piece in response.content.iter_any():
                await passing.write(piece)
            return passing

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", passed)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    async with aiohttp.ClientSession(auto_decompress=False) as there:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}"
        finally:
            await runner.cleanup()
