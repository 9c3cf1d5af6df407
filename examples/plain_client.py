"""A client that knows nothing but the protocol (docs/protocol.md, sections 3 and 5 to 8) and always finds its way back.

Only `pull` and what recovers write into its data, so that it holds nothing ahead of its cursor. It keeps every push
with the data that it was made on: a server that was set back is sent it again, under its old number.
"""

import asyncio
import json
from collections.abc import Iterable
from functools import reduce
from hashlib import sha256
from operator import xor
from typing import Any

import aiohttp
import rfc8785

Json = dict[str, Any]
Key = tuple[str, str]  # collection and atom
FEW = 32  # so many atoms are listed, of more the digests are compared


def leaf(*of: Any) -> int:
    return int.from_bytes(sha256(rfc8785.dumps(of)).digest()[:8], "big")


def digest(leaves: Iterable[int]) -> str:
    return f"{reduce(xor, leaves, 0):016x}"


class Client:
    """A replica in memory: data is (revision, data) by key. Pull before the first push."""

    def __init__(self, session: aiohttp.ClientSession, journal: str, name: str) -> None:
        self.session, self.journal, self.name, self.cursor = session, journal, name, "0"
        self.data: dict[Key, tuple[int, Json]] = {}
        self.pushes: list[Json] = []

    async def pull(self) -> None:
        """Everything since the cursor; where the digest is another then, all is compared."""
        page: Json = {"more": True}
        while page["more"]:
            page = await self.ask("GET", "/deltas?client={name}&since={cursor}")
            for delta in page["deltas"]:
                key, unset = (delta["collection"], delta["atom"]), delta.get("unset", ())
                is_sound = key in self.data or delta["op"] != "update"  # else revision 0: the digest will be another
                _, known = self.data.pop(key, (0, {}))
                stays = {name: known[name] for name in known if delta["op"] == "update" and name not in unset}
                if delta["op"] != "delete":
                    self.data[key] = delta["revision"] * is_sound, stays | delta.get("data", {})
            self.cursor = page["cursor"]
        if page["digest"] != digest(leaf(*key, revision) for key, (revision, _) in self.data.items()):
            await self.verify()

    async def push(self, changes: list[Json], **options: Any) -> list[Json]:
        """What became of changes, each of another atom. After a 410 it was sent again, and this asks for the replay."""
        kept = [c | {"if_data": self.data.get((c["collection"], c["atom"]), (0, None))[1]} for c in changes]
        self.pushes.append({"client": self.name, "push": len(self.pushes) + 1, "changes": kept, **options})
        answer = await self.ask("POST", "/changes", json=self.pushes[-1] | {"changes": changes, "base": self.cursor})
        await self.pull()
        return list(answer["outcomes"])

    async def recover(self, problem: Json) -> None:
        """Reconcile, then send again what the server may have lost: what it has it only answers again."""
        await (self.replace() if problem["reconcile"] == "replace" else self.verify())
        for push in self.pushes:
            await self.ask("POST", "/changes", json=push)
        await self.pull()

    async def replace(self) -> None:
        """Take a snapshot in place of all data."""
        first, *atoms, last = await self.ask("GET", "/snapshot")
        if not last.get("end") or last["atoms"] != len(atoms):
            raise ConnectionError("the snapshot was cut off")
        self.data = {(line["collection"], line["atom"]): (line["revision"], line["data"]) for line in atoms}
        self.cursor = first["cursor"]

    async def verify(self) -> None:
        """Mend what differs; what happens meanwhile is pulled, and the digest says whether it was all."""
        head = await self.ask("GET", "")
        for of in ("content", "revision"):
            leaves = [(key, leaf(*key, held[of == "content"])) for key, held in self.data.items()]
            await self.mend(of, "", [(sha256(rfc8785.dumps(key)).hexdigest(), key, leaf) for key, leaf in leaves])
        self.cursor = head["cursor"]
        await self.pull()

    async def mend(self, of: str, prefix: str, rows: list[tuple[str, Key, int]]) -> None:
        """Make the atoms whose places begin so what the server has there; `rows`: place, key and leaf of those here."""
        there = await self.ask("GET", f"/digest?of={of}&prefix={prefix}")
        if there["count"] > FEW:
            for child in (prefix + digit for digit in "0123456789abcdef"):
                beneath = [row for row in rows if row[0].startswith(child)]
                if digest(row[2] for row in beneath) != there["children"].get(child, {"digest": digest([])})["digest"]:
                    await self.mend(of, child, beneath)
            return
        mine = {key: leaf for _, key, leaf in rows}
        for row in (await self.ask("GET", f"/manifest?of={of}&prefix={prefix}"))["atoms"]:
            key = collection, atom = row["collection"], row["atom"]
            if mine.pop(key, None) != int(row["leaf"], 16):
                found = await self.ask("POST", "/lookup", json={"get": {collection: [atom]}})
                if held := found["atoms"][collection][atom]:
                    self.data[key] = held["revision"], held["data"]
        for key in mine:
            del self.data[key]

    async def ask(self, method: str, path: str, **body: Any) -> Any:
        """The answer; who has to wait or to recover does so, and asks again."""
        async with self.session.request(method, self.journal + path.format(**vars(self)), **body) as response:
            lines = (await response.read()).splitlines()
        if response.status in (410, 429, 503):
            await asyncio.sleep(int(response.headers["Retry-After"]))
            if response.status == 410:
                await self.recover(json.loads(lines[0]))
            return await self.ask(method, path, **body)
        response.raise_for_status()
        return [json.loads(line) for line in lines] if path == "/snapshot" else json.loads(b"".join(lines))
