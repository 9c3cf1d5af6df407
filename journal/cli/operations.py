"""What takes long in the service: `journal check`, `journal compact`, and `journal operations` that shows them.

Its rule: the service does it, not the command. Whoever interrupts the command has stopped looking, and nothing else.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from msgspec import Raw
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from journal.cli import say
from journal.cli.options import URL, By, Json, Name, Url, Yes
from journal.cli.service import connected
from journal.client.http import Http, Refused, Unreachable
from journal.wire import CheckResult, CompactResult, OperationAnswer, OperationsAnswer

AT_ONCE_S = 1  # an operation that ends sooner is never looked at twice
LOOK_EVERY_S = 0.5
AWAY_S = 60.0  # how long the service may be away while an operation is looked at
COLOUR = {"running": "yellow", "done": "green", "failed": "red"}
T = TypeVar("T")


def check(name: Name, *, by: By = None, url: Url = URL, as_json: Json = False) -> None:
    """Recompute a journal's chain and state from its record, and compare them with what is stored.

    Ends with 1 if anything is not as it should be; docs/operations.md says what each kind of fault means.
    """
    with say.told(as_json=as_json):
        told = _watched(name, _ran(name, "check", {}, url, by))
        result = msgspec.json.decode(told.result or b"", type=CheckResult)
    if as_json:
        say.result(told)
    else:
        _show_check(name, result)
    if not result.ok:
        raise typer.Exit(1)


def _show_check(name: str, result: CheckResult) -> None:
    looked_at = f"{say.count(result.changes, 'change')} from revision {result.since} to {result.revision}"
    looked_at += f", {say.count(result.atoms, 'atom')} with those that were deleted"
    if result.ok:
        say.out.print(f"[green]{name}[/]: all is as it should be: {looked_at}")
        return
    table = say.table("what", "where", "detail")
    for fault in result.faults:
        table.add_row(fault.what, Text(fault.where), Text(fault.detail))
    table.columns[-1].no_wrap, table.columns[-1].overflow = False, "fold"  # every word of it counts
    say.out.print(table)
    more = ", and there are more" if result.more else ""
    say.note(f"[bold red]{name}: {say.count(len(result.faults), 'fault')}{more}[/] in {looked_at}")
    say.note("docs/operations.md, “check found something”, says what each means and what to do")


def compact(
    name: Name,
    *,
    keep_revisions: Annotated[
        int | None, typer.Option("--keep-revisions", help="Keep the last so many.", min=0, metavar="N")
    ] = None,
    keep_days: Annotated[
        float | None, typer.Option("--keep-days", help="Keep what is younger.", min=0, max=36_500, metavar="DAYS")
    ] = None,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also past clients that were seen lately.")] = False,
    yes: Yes = False,
    by: By = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """Raise a journal's horizon and remove what is older; it shows what that comes to, and asks.

    With both --keep-revisions and --keep-days, what either keeps is kept.
    """
    if keep_revisions is None and keep_days is None:
        raise typer.BadParameter("say how much is kept: --keep-revisions N, --keep-days DAYS or both")
    asked = {"keep_revisions": keep_revisions, "keep_days": keep_days, "force": force}
    with say.told(as_json=as_json):
        if is_dry or not yes:
            told = _watched(name, _ran(name, "compact", asked | {"dry_run": True}, url, by, label="looking"))
            plan = msgspec.json.decode(told.result or b"", type=CompactResult)
            if not (is_dry and as_json):
                _show_plan(name, plan, is_forced=force)
        if not is_dry and (yes or _is_worth_it(plan)):
            say.confirmed("Go on?", yes=yes)
            told = _watched(name, _ran(name, "compact", asked, url, by))
            plan = msgspec.json.decode(told.result or b"", type=CompactResult)
    if as_json:
        say.result(told)
    elif not is_dry and not plan.dry_run:
        say.out.print(f"[green]{name}[/]: the horizon is {plan.horizon}, it was {plan.was}; removed {_amount(plan)}.")
        say.note("[dim]PostgreSQL gives the room to new rows once autovacuum was there[/]")


def _is_worth_it(plan: CompactResult) -> bool:
    return plan.horizon > plan.was or plan.changes + plan.commits + plan.tombstones > 0


def _show_plan(name: str, plan: CompactResult, *, is_forced: bool) -> None:
    """What a compaction would do: to stderr, as the ground for an answer; the result comes later."""
    if not _is_worth_it(plan):
        say.note(f"{name}: there is nothing to remove; the horizon stays at {plan.was}")
    else:
        say.note(f"{name}: the horizon would go from {plan.was} to {plan.horizon}, and {_amount(plan)} would go.")
    for holder in plan.held_by:
        what = {
            "client": f"client {holder.name} stands at {holder.revision} and was seen lately (--force goes past it)",
            "snapshot": f"a snapshot of revision {holder.revision} is being read, or was within the hour",
        }[holder.what]
        say.note(f"[yellow]held back[/] from {plan.wanted}: {what}")
    if plan.cut_off:
        seen = "" if is_forced else ", none of them seen lately"
        say.note(
            f"[yellow]cut off[/]: {say.count(len(plan.cut_off), 'client')}{seen}; each starts again when it next asks"
        )
        table = say.table("client", "at", "seen", right=("at", "seen"))
        for one in plan.cut_off[:20]:
            table.add_row(str(one.client), str(one.revision), f"{say.ago(one.last_seen)} ago")
        say.err.print(table)
        if len(plan.cut_off) > 20:
            say.note(f"[dim]… and {len(plan.cut_off) - 20} more: --dry-run --json lists them[/]")


def _amount(plan: CompactResult) -> str:
    counts = (say.count(plan.changes, "change"), say.count(plan.commits, "commit"),
              say.count(plan.tombstones, "tombstone"))  # fmt: skip
    return f"{', '.join(counts)} ({decimal(plan.bytes)})"


def operations(
    name: Name,
    *,
    by: By = None,
    url: Url = URL,
    as_json: Json = False,
) -> None:
    """What takes long in a journal, the newest first: how far it is, or what it came to."""

    async def ask() -> bytes:
        async with connected(url, by=by) as http:
            return await http.get("journals", name, "operations")

    with say.told(as_json=as_json):
        body = asyncio.run(ask())
    if as_json:
        say.result(body)
        return
    told = msgspec.json.decode(body, type=OperationsAnswer).operations
    table = say.table("kind", "begun", "state", "progress", "by", "result", right=("progress",))
    for one in told:
        at, state = say.moment(one.begun_at), Text(one.state, COLOUR[one.state])
        table.add_row(one.kind, at, state, f"{one.progress:.0%}", Text(one.by), Text(_summary(one)))
    if told:
        say.show(table)
    else:
        say.out.print("nothing: no check and no compaction in the last 30 days")


def _summary(one: OperationAnswer) -> str:
    if one.result is None:
        return ""
    if one.state == "failed":
        return _detail(one.result)
    match one.kind:
        case "check":
            checked = msgspec.json.decode(one.result, type=CheckResult)
            return "all as it should be" if checked.ok else say.count(len(checked.faults), "fault")
        case "compact":
            plan = msgspec.json.decode(one.result, type=CompactResult)
            return f"{'would go' if plan.dry_run else 'went'} from {plan.was} to {plan.horizon}: {_amount(plan)}"
    return bytes(one.result).decode()


async def _ran(
    name: str, kind: str, asked: dict[str, Any], url: str, by: str | None, *, label: str | None = None
) -> OperationAnswer:
    """An operation from its beginning to its end, with a bar for whoever waits."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    async with connected(url, by=by) as http:
        _, body = await http.post("journals", name, kind, body=asked or None, wait_s=AT_ONCE_S)
        told = msgspec.json.decode(body, type=OperationAnswer)
        is_shown = say.err.is_terminal and told.state == "running"
        with Progress(*columns, console=say.err, transient=True, disable=not is_shown) as progress:
            task = progress.add_task(label or kind, total=1.0)
            while told.state == "running":
                progress.update(task, completed=told.progress)
                await asyncio.sleep(LOOK_EVERY_S)
                told = await _looked_at(http, name, told)
    if told.state == "failed":
        raise say.Failed("operation_failed", f"{kind} of {name}: {_detail(told.result)}")
    return told


async def _looked_at(http: Http, name: str, told: OperationAnswer) -> OperationAnswer:
    """How far it is now; a service that is away for a while is waited for."""
    deadline = time.monotonic() + AWAY_S
    while True:
        try:
            body = await http.get("journals", name, "operations", str(told.id))
            return msgspec.json.decode(body, type=OperationAnswer)
        except (Unreachable, Refused) as error:
            will_pass = isinstance(error, Unreachable) or error.status >= 500
            if not will_pass or time.monotonic() > deadline:
                raise
            await asyncio.sleep(1)


def _watched(name: str, looking: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(looking)
    except KeyboardInterrupt:
        say.note(
            f"\ninterrupted: what had begun goes on in the service; `journal operations {name}` shows how far it is"
        )
        raise


def _detail(result: Raw | None) -> str:
    told = msgspec.json.decode(result or b"{}")
    return str(told.get("detail", "it failed, and did not say why"))
