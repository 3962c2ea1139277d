"""What a claim looks at, of what it has read."""

from typing import Any

from bson import ObjectId

from banyan.domain.resources import Capacity
from banyan.server.store.mongo import now
from banyan.server.verbs.choosing import Room, Wish, _Look, _looked_at


def a_task(shape: str, number: int) -> dict[str, Any]:
    return {
        "_id": ObjectId(),
        "shape": shape,
        "priority": 0,
        "seq": number,
        "available_since": now(),
        "requested_resources": {},
    }


def test_what_has_no_room_yet_is_looked_at_after_each_lost_race():
    """It may have waited for so long that nothing may pass it."""
    large = a_task("large", 0)
    tasks = [large, *(a_task("small", number) for number in range(1, 1000))]
    left = {str(task["_id"]): task for task in tasks}
    room = Room(Capacity(cores=1, memory_bytes=1), Capacity(cores=4, memory_bytes=1), 1, 0)
    wish = Wish({}, {}, room, lost_rounds=1)
    looked_at = list(_looked_at(left, wish, _Look(("small",), ("large",), None)))
    assert str(large["_id"]) in {one.task_id for one in looked_at}
    assert 1 < len(looked_at) < 10
