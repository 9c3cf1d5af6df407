"""P6, P10: whatever happens to the processes, what was answered is there, what was not is whole or not at all, nothing
is there twice, everybody ends alike, and the service comes back by itself. Short; `make faults` takes its time."""

from pathlib import Path

import pytest

from tests.fault.faults import FAULTS, tried
from tests.fault.had import lacking
from tests.fault.places import NotToBeHad

SHORT = {fault.make.__name__: fault for fault in FAULTS if fault.short_s is not None}


@pytest.mark.parametrize("name", SHORT)
async def test_p6_p10_nothing_is_lost_doubled_or_torn_and_the_service_comes_back(name: str, tmp_path: Path) -> None:
    fault = SHORT[name]
    try:
        account = await tried(fault, tmp_path, seconds=fault.short_s or 0.0, before=30, after=20)
    except NotToBeHad as reason:
        lacking(reason)
        return

    assert account.wrong == []
    assert (account.doubled, account.lost, account.torn) == (0, 0, 0)
    assert account.recorded == account.answered + account.whole
    assert account.tried == account.answered + account.unknown
    assert account.answered >= 50
    assert account.served_s < 15
