"""A process that is stopped while it holds a journal's head keeps nobody else from it for long."""

import asyncio
from pathlib import Path
from uuid import uuid4

import asyncpg

from tests.harness import blocked_on_lock, eventually, insert, serving
from tests.subprocess_service import serving_apart

_HOLDING = """
select count(*) from pg_stat_activity
 where datname = current_database() and application_name like 'journal write%' and state = 'idle in transaction'
"""


async def test_a_head_that_a_frozen_process_holds_is_taken_from_it(database: str, tmp_path: Path) -> None:
    """As where its machine is gone without a word: PostgreSQL has to end the transaction, which nobody else can."""
    async with serving_apart(database, tmp_path) as frozen, serving(database, tmp_path) as other:
        await other.create()
        client, number = str(uuid4()), 0
        while True:
            number += 1
            answer = await other.pushed([insert("todo", f"other {number}")])  # both write: they decide under the lock

            async def knows(head: int = answer["head"]) -> bool:
                return bool((await frozen.head())["head"] >= head)

            await eventually(knows)
            holder = await asyncpg.connect(database)
            transaction = holder.transaction()
            await transaction.start()
            await holder.execute("lock table journal.atom")
            pushing = asyncio.create_task(frozen.push([insert("todo", f"{number}")], client=client, push=number))
            await blocked_on_lock(database)
            frozen.freeze()
            await transaction.rollback()
            await holder.close()
            if (await other.query(_HOLDING))[0]["count"]:
                break
            frozen.thaw()
            await pushing

        async def is_taken() -> bool:
            return (await other.push([insert("todo", "after")], client=str(uuid4()), push=1)).status == 200

        await eventually(is_taken, seconds=60)
        frozen.thaw()
        assert (await pushing).status in (200, 503)
        again = await frozen.push([insert("todo", f"{number}")], client=client, push=number)
        assert (again.status, again.json["outcomes"][0]["status"]) == (200, "applied")
        assert (await other.call("POST", "j/check", headers={"Prefer": "wait=30"})).json["result"]["ok"] is True
