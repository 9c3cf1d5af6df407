"""The console in a browser, as an operator without a mouse uses it; what that does is seen over the API."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Request, expect

from tests.harness import Harness, Json, eventually, insert, update

NASTY = "<img src=x onerror=\"document.title='taken'\">"
FILES = Path(__file__).parents[2] / "journal" / "web" / "console"
ME = "Zoë <zoë@example.org>"
PATIENCE_MS = 8_000


# How many times Tab leads from where the focus is to an element: negative with Shift; a guess where there is much.
STEPS = """target => {
  const within = document.querySelector("dialog[open]") ?? document.body;
  const all = [...within.querySelectorAll("a[href], button, input, summary, [tabindex='0']")]
    .filter((it) => it.checkVisibility() && !it.disabled);
  const from = all.indexOf(document.activeElement);
  return target === document.activeElement ? 0 : all.indexOf(target) - from || 1;
}"""


class Console:
    """The page, and what it must not do. `refused`: how many requests may be refused."""

    def __init__(self, service: Harness, page: Page) -> None:
        self.service, self.page = service, page
        self.wrong: list[str] = []
        self.refused = 0
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", self._asked)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.text.startswith("Failed to load resource"):
            self.refused -= 1
        elif message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.service.url + "/", "data:")):
            self.wrong.append(f"asked {request.url}")

    async def open(self, address: str = "#/j") -> None:
        """Go there; it is there once the figures are."""
        await self.page.goto(f"{self.service.url}/console{address}")
        if address.startswith("#/"):
            await expect(self.page.locator(".figures-row dd").first).to_have_text(re.compile(r"\d"))

    def button(self, name: str) -> Locator:
        """A button by its name, in the dialog where there is one."""
        return self.page.get_by_role("button", name=name, exact=True)

    async def tab_to(self, target: Locator) -> None:
        """Tab until it has the focus, the shorter way round."""
        await target.wait_for()
        for _ in range(20):
            steps = await target.evaluate(STEPS)
            if steps == 0:
                return
            for _ in range(abs(steps)):
                await self.page.keyboard.press("Tab" if steps > 0 else "Shift+Tab")
        pytest.fail(f"the keyboard does not get to {target}")

    async def press(self, name: str) -> None:
        """Tab to a button and press it with Enter."""
        await self.tab_to(self.button(name))
        await self.page.keyboard.press("Enter")

    async def fill(self, label: str, text: str) -> None:
        """Tab to an input, and type in place of what it has."""
        await self.tab_to(self.page.get_by_label(label, exact=True))
        await self.page.keyboard.press("Control+A")
        await self.page.keyboard.insert_text(text)

    async def closed(self) -> None:
        """The dialog has gone."""
        await expect(self.page.get_by_role("dialog")).to_have_count(0)

    async def said(self, text: str) -> None:
        """It is announced."""
        await expect(self.page.locator("#said p")).to_contain_text(text)


@asynccontextmanager
async def looking(browser: Browser, service: Harness, **options: Any) -> AsyncIterator[Console]:
    """A console in a window of its own; nothing has gone wrong in it when it closes."""
    context = await browser.new_context(**({"viewport": {"width": 1600, "height": 1000}} | options))
    context.set_default_timeout(PATIENCE_MS)
    console = Console(service, await context.new_page())
    yield console
    await context.close()
    assert console.wrong == []
    assert console.refused >= 0


@pytest.fixture
async def console(browser: Browser, service: Harness) -> AsyncIterator[Console]:
    """A console of the journal `j`, not yet opened."""
    expect.set_options(timeout=PATIENCE_MS)
    async with looking(browser, service) as shown:
        yield shown


async def seen(service: Harness, since: str | int, client: UUID, agent: str = "app/1") -> int:
    """A client asks for deltas; the status that it is answered."""
    parameters = {"since": str(since), "client": str(client)}
    return (await service.call("GET", "j/deltas", params=parameters, headers={"User-Agent": agent})).status


async def three_clients(service: Harness) -> tuple[list[UUID], str]:
    """Six revisions, and clients at 0, 2 and 6; their ids and the cursor at the head."""
    clients = [uuid4() for _ in range(3)]
    cursors = [(await service.head())["cursor"]]
    for n in range(6):
        await service.pushed([insert("todo" if n % 2 else "note", f"{n}")])
        cursors.append((await service.head())["cursor"])
    for client, at in zip(clients, (0, 2, 6), strict=True):
        assert await seen(service, cursors[at], client) == 200
    return clients, cursors[-1]


async def deeds(service: Harness) -> list[Json]:
    audit: list[Json] = (await service.call("GET", "j/audit")).json["audit"]
    return audit


# The files.


async def test_the_page_may_run_and_ask_nothing_but_what_the_service_serves(service: Harness) -> None:
    page = await service.call("GET", "/console")
    again = await service.call("GET", "/console", headers={"If-None-Match": page.headers["ETag"]})
    files = {file.name: await service.call("GET", f"/console/{file.name}") for file in FILES.iterdir()}
    others = [await service.call("GET", f"/console/{name}") for name in ("none.js", "..%2fapp.py", "__init__.py", "")]

    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert (again.status, again.body) == (304, b"")
    assert {name: reply.status for name, reply in files.items()} == dict.fromkeys(files, 200)
    assert [reply.status for reply in others] == [404] * 4
    for reply in (page, *files.values()):
        assert reply.headers["Cache-Control"] == "no-cache"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'; script-src 'self'" in reply.headers["Content-Security-Policy"]
    assert not re.search(rb"<style|style=|\son\w+=|<script(?! type=\"module\" src=)", page.body)


# Resync.


async def test_an_operator_resyncs_one_client(console: Console) -> None:
    service = console.service
    [behind, middle, current], cursor = await three_clients(service)
    await console.open()
    await console.fill("You are", ME)

    await console.press(f"Resync client {middle}")
    await console.fill("Reason", "shows last week's visits")
    await console.page.keyboard.press("Enter")
    await console.closed()
    await console.said("starts again when it next asks: revision 7")

    assert await console.button(f"Resync client {middle}").evaluate("it => it === document.activeElement")
    row = console.page.locator(".clients tr").filter(has_text=str(middle))
    await expect(row).to_contain_text("has not obeyed resync 7")
    found = (await service.call("GET", f"j/clients/{middle}")).json
    assert (found["resync"], (await service.call("GET", f"j/clients/{behind}")).json["resync"]) == (7, None)
    [deed] = await deeds(service)
    assert (deed["by"], deed["action"], deed["detail"]["reason"]) == (ME, "resync", "shows last week's visits")
    assert await seen(service, cursor, current) == 200
    assert await seen(service, cursor, middle) == 410


async def test_a_client_that_was_never_seen_can_be_resynced_by_its_id(console: Console) -> None:
    client = uuid4()
    _, cursor = await three_clients(console.service)
    await console.open()
    console.refused = 20  # it asks for the client, which is not there

    await console.tab_to(console.page.locator(".clients input"))
    await console.page.keyboard.insert_text(str(client))
    await console.press("Resync it…")
    await console.page.keyboard.insert_text("a stolen phone")
    await console.page.keyboard.press("Enter")
    await console.closed()

    assert await seen(console.service, cursor, client) == 410


async def test_an_operator_resyncs_a_collection(console: Console) -> None:
    [*_, current], cursor = await three_clients(console.service)
    await console.open()

    await console.press("Resync collection note")
    await console.fill("Reason", "new form")
    await console.fill("Spread over (seconds)", "0")
    await console.press("Resync this collection")
    await console.closed()

    [deed] = await deeds(console.service)
    assert deed["detail"] == {"revision": 7, "collections": ["note"], "spread_s": 0, "reason": "new form"}
    assert await seen(console.service, cursor, current) == 410
    assert (await console.service.deltas(cursor, collections="todo", client=uuid4())).status == 200


async def test_an_operator_resyncs_everyone_over_some_time(console: Console) -> None:
    [*_, current], cursor = await three_clients(console.service)
    await console.open()

    await console.press("Resync everyone…")
    await console.fill("Reason", "moved to a new server")
    await console.fill("Spread over (seconds)", "600")
    await console.page.keyboard.press("Enter")
    await console.closed()

    [deed] = await deeds(console.service)
    assert deed["detail"] == {"revision": 7, "spread_s": 600, "reason": "moved to a new server"}
    assert await seen(console.service, cursor, current) == 410
    await expect(console.page.locator(".figures-row")).to_contain_text("Resync waits for3")


async def test_escape_and_cancel_do_nothing_and_give_the_focus_back(console: Console) -> None:
    [behind, *_], _ = await three_clients(console.service)
    await console.open()

    for leave in ("Escape", "Cancel"):
        await console.press(f"Forget client {behind}")
        await expect(console.page.get_by_role("dialog")).to_be_visible()
        if leave == "Cancel":
            await console.press(leave)
        else:
            await console.page.keyboard.press(leave)
        await console.closed()
        assert await console.button(f"Forget client {behind}").evaluate("it => it === document.activeElement")

    assert await deeds(console.service) == []


async def test_an_operator_forgets_a_client(console: Console) -> None:
    [behind, *others], cursor = await three_clients(console.service)
    await console.open()

    await console.press(f"Forget client {behind}")
    await console.page.keyboard.press("Enter")
    await console.closed()

    await expect(console.page.locator(".clients tr").filter(has_text=str(behind))).to_have_count(0)
    left = (await console.service.call("GET", "j/clients")).json["clients"]
    assert [client["client"] for client in left] == [str(client) for client in others]
    assert await seen(console.service, cursor, behind) == 409


# What concerns the journal.


async def test_an_operator_compacts_after_a_dry_run(console: Console) -> None:
    [behind, *_], _ = await three_clients(console.service)
    await console.open()

    await console.fill("Keep revisions", "1")
    await console.fill("Keep days", "")
    await console.press("Dry run")
    out = console.page.locator(".actions .out").first
    await expect(out).to_contain_text("Nothing would go: the horizon stays at 0.")
    await expect(out).to_contain_text(str(behind))
    await expect(console.button("Compact now…")).to_be_hidden()

    await console.tab_to(console.page.get_by_label("Do not wait for clients that were seen lately"))
    await console.page.keyboard.press("Space")
    await console.press("Dry run")
    await expect(out).to_contain_text("The horizon would go from 0 to 5.")
    await expect(out).to_contain_text("2 clients would have to start again")
    assert (await console.service.head())["horizon"] == 0

    await console.press("Compact now…")
    await expect(console.page.get_by_role("dialog")).to_contain_text("2 clients must start again.")
    await console.page.keyboard.press("Enter")
    await console.closed()
    await expect(out).to_contain_text("The horizon went from 0 to 5.")

    assert (await console.service.head())["horizon"] == 5
    assert [deed["action"] for deed in await deeds(console.service)] == ["compact"]
    await expect(console.page.locator(".operations tbody tr")).to_have_count(3)


async def test_an_operator_checks(console: Console) -> None:
    await three_clients(console.service)
    await console.open()

    await console.press("Check…")
    await console.page.keyboard.press("Enter")
    await console.closed()
    await expect(console.page.locator(".actions")).to_contain_text("Everything is as the record says")

    [operation] = (await console.service.call("GET", "j/operations")).json["operations"]
    assert (operation["kind"], operation["state"], operation["result"]["ok"]) == ("check", "done", True)


async def test_a_check_lists_every_fault(console: Console) -> None:
    await console.service.pushed([insert("todo", NASTY), insert("todo", "b")])
    await console.service.query("update journal.atom set data = '{\"n\": 2}' where atom = $1", NASTY)
    await console.open()

    await console.press("Check…")
    await console.page.keyboard.press("Enter")
    await console.closed()

    [operation] = await eventually(lambda: ended(console.service))
    faults = operation["result"]["faults"]
    assert faults
    out = console.page.locator(".actions .result")
    for fault in faults:
        await expect(out.locator("li").filter(has_text=fault["detail"]).first).to_contain_text(fault["where"])


async def ended(service: Harness) -> list[Json]:
    told: list[Json] = (await service.call("GET", "j/operations")).json["operations"]
    return told if told and all(operation["state"] != "running" for operation in told) else []


async def test_an_operator_erases_an_atom_once_its_name_is_typed_twice(console: Console) -> None:
    await console.service.pushed([insert("person", NASTY, {"phone": "0123"}), insert("person", "kept")])
    await console.open()
    console.refused = 1

    await console.press("Erase an atom…")
    await console.fill("Collection", "person")
    await console.fill("Atom", "never")
    await console.fill("The atom once more", "nev")
    await console.page.keyboard.press("Enter")
    await expect(console.page.get_by_role("dialog")).to_be_visible()
    assert (await console.service.head())["head"] == 2
    await console.fill("The atom once more", "never")
    await console.page.keyboard.press("Enter")
    await expect(console.page.locator("dialog .error")).to_contain_text("there never was such an atom")
    await console.page.keyboard.press("Shift+Tab")
    for label in ("Atom", "The atom once more"):
        await console.fill(label, NASTY)
    await console.press("Erase this atom")
    await console.closed()
    await expect(console.page.locator(".actions")).to_contain_text("Erased at revision 3: blanked in 1 change")

    history = (await console.service.call("GET", "j/atom/history", params={"collection": "person", "atom": NASTY})).json
    assert [change.get("erased", False) for change in history["changes"]] == [False, True]
    await expect(console.page.locator(".audit tbody")).to_contain_text(f"{NASTY} of person erased at revision 3")
    assert await console.page.title() == "j · journal console"


async def test_the_audit_log_says_how_conflicts_were_settled(console: Console) -> None:
    for keep in ({"keep": "server"}, {"keep": "client"}, {"keep": "both", "atom": f"{NASTY} 2"}):
        conflict = [insert("person", NASTY, {"mine": str(keep)})]
        await console.service.pushed([insert("person", NASTY)])
        kept = (await console.service.pushed(conflict, on_conflict="both"))["outcomes"][0]["kept"]
        await console.service.call("POST", f"j/conflicts/{kept}", json=keep)
    await console.open()

    both, client, server = (console.page.locator(".audit tbody tr").nth(place) for place in range(3))
    await expect(both).to_contain_text(
        f"conflict 3 about {NASTY} of person settled: both, the client's version as {NASTY} 2"
    )
    await expect(client).to_contain_text("settled: the client's version")
    await expect(server).to_contain_text("settled: what stands stays")


# Another PostgreSQL.


async def test_a_failover_is_a_question_that_one_answer_settles(console: Console) -> None:
    await console.service.query("update journal.server set timeline = timeline + 1")
    await console.open()
    question = console.page.locator("#question")
    await expect(question).to_contain_text("Was it a failover, or was it restored?")
    assert (await console.service.call("GET", "/v1/server")).json["is_other"]
    epoch = (await console.service.head())["epoch"]

    await console.press("It was a failover…")
    await console.page.keyboard.press("Enter")
    await console.closed()

    await expect(question).to_be_hidden()
    assert not (await console.service.call("GET", "/v1/server")).json["is_other"]
    assert (await console.service.head())["epoch"] == epoch


async def test_a_restore_gives_the_journals_that_were_chosen_a_new_epoch(console: Console) -> None:
    service = console.service
    await service.create("untouched")
    await service.pushed([insert("todo", "a")])
    before = {j: await service.head(j) for j in ("j", "untouched")}
    await service.query("update journal.server set system = '1'")
    await console.open()

    await console.press("It was restored…")
    await console.press("Begin new epochs")
    await expect(console.page.get_by_role("dialog").get_by_role("alert")).to_contain_text("Choose at least one journal")
    await console.tab_to(console.page.get_by_role("dialog").get_by_label("j head 1"))
    await console.page.keyboard.press("Space")
    await console.fill("Spread over (seconds)", "5")
    await console.page.keyboard.press("Enter")
    await console.closed()

    after = {j: await service.head(j) for j in before}
    assert after["j"]["epoch"] != before["j"]["epoch"]
    assert after["j"]["horizon"] == after["j"]["head"] == 2**32
    assert after["untouched"] == before["untouched"]
    assert not (await service.call("GET", "/v1/server")).json["is_other"]
    await expect(console.page.locator("#question")).to_be_hidden()
    await expect(console.page.locator(".figures-row")).to_contain_text("4,294,967,296")


# Looking.


async def test_journals_are_filtered_and_paged_and_the_address_keeps_the_one_that_is_shown(console: Console) -> None:
    for n in range(25):
        await console.service.create(f"tenant-{n:02}")
    await console.open("")
    names = console.page.locator(".journals .name")
    await expect(names).to_have_count(20)

    await console.tab_to(console.page.locator(".side").get_by_role("button", name="Next"))
    await console.page.keyboard.press("Enter")
    await expect(names).to_have_count(6)
    await console.tab_to(console.page.locator(".side").get_by_role("button", name="Previous"))
    await console.page.keyboard.press("Enter")
    await expect(names).to_have_count(20)
    await console.page.reload()
    await console.tab_to(console.page.get_by_label("Filter journals"))
    await console.page.keyboard.insert_text("NT-2")
    await expect(names).to_have_text(["tenant-20", "tenant-21", "tenant-22", "tenant-23", "tenant-24"])
    await console.page.keyboard.press("Tab")
    await console.page.keyboard.press("Enter")
    await expect(console.page.locator("main h2")).to_have_text("tenant-20")
    assert console.page.url.endswith("#/tenant-20")
    await console.page.reload()

    await expect(console.page.locator("main h2")).to_have_text("tenant-20")
    assert await console.page.title() == "tenant-20 · journal console"
    await expect(console.page.locator(".journals [aria-current]")).to_contain_text("head 0")


async def test_clients_are_found_and_one_is_shown_with_what_it_pushed(console: Console) -> None:
    service, client = console.service, uuid4()
    await three_clients(service)
    await service.pushed(
        [insert("todo", "mine"), update("todo", "1", {"n": 3}, if_data={"n": 2})], client=str(client), push=7
    )
    await seen(service, (await service.head())["cursor"], client, agent=NASTY)
    await console.open()
    rows = console.page.locator(".clients tbody tr")
    await expect(rows).to_have_count(4)

    await console.tab_to(console.page.locator(".clients input"))
    await console.page.keyboard.insert_text("ONERROR")
    await expect(rows).to_have_count(1)
    await console.tab_to(console.page.get_by_role("link", name=str(client)))
    await console.page.keyboard.press("Enter")

    detail = console.page.locator(".clients .detail")
    await expect(detail).to_contain_text("1 applied, 1 conflict")
    await expect(detail).to_contain_text(NASTY)
    await expect(detail).to_contain_text("Up to date.")
    assert console.page.url.endswith(f"#/j/clients/{client}")
    await console.page.keyboard.press("Shift+Tab")
    await console.page.keyboard.press("Enter")
    await expect(detail).to_be_hidden()
    assert await console.page.get_by_role("link", name=str(client)).evaluate("it => it === document.activeElement")


async def test_the_audit_log_is_searched_and_what_others_wrote_is_text(console: Console) -> None:
    for n in range(30):
        who = {"From": NASTY if n == 3 else "anna"}
        asked = {"reason": f"number {n} {NASTY}", "collections": [NASTY]}
        await console.service.call("POST", "j/resync", json=asked, headers=who)
    await console.service.pushed([insert(NASTY, NASTY)])
    await console.open()
    rows = console.page.locator(".audit tbody tr")
    await expect(rows).to_have_count(25)

    await console.tab_to(console.page.locator(".audit").get_by_role("button", name="Next"))
    await console.page.keyboard.press("Enter")
    await expect(rows).to_have_count(5)
    await console.tab_to(console.page.locator(".audit input"))
    await console.page.keyboard.insert_text("number 3 ")
    await expect(rows).to_have_count(1)

    await expect(rows).to_contain_text(f"starts again, revision 4: number 3 {NASTY}")
    await expect(console.page.locator(".collections tbody")).to_contain_text(NASTY)
    assert await console.page.locator("img").count() == 0
    assert await console.page.title() == "j · journal console"


async def test_the_chart_and_the_figures_follow_the_journal(console: Console) -> None:
    await console.open()
    chart = console.page.locator(".chart svg")
    await expect(chart).to_have_attribute("aria-label", "No commits in the last five minutes.")

    for n in range(40):
        await console.service.pushed([insert("todo", f"{n}")])

    await expect(console.page.locator(".figures-row dd").first).to_have_text("40")
    await console.tab_to(chart)
    for _ in range(3):
        await console.page.keyboard.press("ArrowLeft")
    await expect(console.page.locator(".readout")).to_have_text(
        re.compile(r"^\d\d:\d\d:\d\d: 0 commits/s, 0 revisions/s$")
    )
    await console.page.keyboard.press("Escape")
    await expect(chart).to_have_attribute("aria-label", re.compile(r"last .* mean .* highest \d.* at \d\d:\d\d:\d\d"))


async def test_it_says_when_the_service_is_away_and_comes_back_by_itself(console: Console) -> None:
    await console.open()
    console.refused = 10_000
    await console.tab_to(console.button("Check…"))

    await console.page.context.set_offline(True)
    await expect(console.page.locator("#away")).to_contain_text("The service does not answer. What is shown is of")
    await console.service.pushed([insert("todo", "a")])
    await console.page.context.set_offline(False)

    await expect(console.page.locator("#away")).to_be_hidden()
    await console.said("The service answers again.")
    await expect(console.page.locator(".figures-row dd").first).to_have_text("1")
    await expect(console.page.locator(".journals .figures")).to_have_text(re.compile(r"^head 1 · [\d.<]+ rev/s"))
    assert await console.button("Check…").evaluate("it => it === document.activeElement")


async def test_a_journal_that_is_not_there_is_said(console: Console) -> None:
    console.refused = 100
    await console.page.goto(f"{console.service.url}/console#/none")

    await expect(console.page.get_by_role("alert")).to_have_text("There is no journal of this name.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
async def test_it_fits_and_never_scrolls_sideways(browser: Browser, service: Harness, width: int, scheme: Any) -> None:
    clients, cursor = await three_clients(service)
    long = "a name that is as long as it may be, " * 3
    await service.pushed([update("todo", "1", {"n": 2}), insert("x" * 128, "a"), insert(long.replace(",", ""), "b")],
                         on_conflict="client")  # fmt: skip
    await seen(service, cursor, uuid4(), agent="an-agent-of-one-long-word/" + "9" * 150)
    await service.call("POST", "j/resync", json={"client": str(clients[0]), "reason": "w" * 500})
    await service.create("9" * 63)
    await service.query("update journal.server set system = '1'")
    viewport = {"width": width, "height": 900}

    async with looking(browser, service, viewport=viewport, color_scheme=scheme, reduced_motion="reduce") as console:
        for address in ("#/j", f"#/j/clients/{clients[0]}", f"#/{'9' * 63}"):
            await console.open(address)
            await expect(console.page.locator("#question")).to_be_visible()
            await console.press("Erase an atom…")
            dialog = console.page.get_by_role("dialog")
            assert await dialog.evaluate("it => it.scrollWidth <= it.clientWidth")
            await console.page.keyboard.press("Escape")
            assert await console.page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
            boxes = await console.page.locator(".scroll").all()
            assert [await box.evaluate("it => it.scrollWidth - it.clientWidth") for box in boxes] == [0] * len(boxes)
            assert await faint(console.page) == []


async def faint(page: Page) -> list[str]:
    """Texts whose contrast with what is behind them is below 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    found: list[str] = await page.evaluate(CONTRAST)
    return found


CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (it) => {
    for (; it; it = it.parentElement) {
      const colour = getComputedStyle(it).backgroundColor;
      if (colour.startsWith("rgb") && parts(colour)[3] !== 0) return parts(colour);
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *:not([aria-disabled])")]
    .filter((it) => [...it.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()))
    .filter((it) => it.checkVisibility() && it.namespaceURI.endsWith("xhtml"))
    .filter((it) => {
      const [one, other] = [light(parts(getComputedStyle(it).color)), light(behind(it))];
      return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5;
    })
    .map((it) => it.textContent);
}"""
