from tests.harness import Harness, insert


async def test_a_push_is_told_to_who_asks_since_before(service: Harness) -> None:
    answer = await service.pushed([insert("todo", "a")])

    told, last = await service.round(0)

    assert answer["revision"] == last["until"] == 1
    assert [delta["atom"] for delta in told] == ["a"]
