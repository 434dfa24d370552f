"""The rules of the chat example, without a server: seats, names, cursors, bounds, and who wakes whom."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "chat"))

import rooms

GRACE = 1.5


@pytest.fixture
def room():
    return rooms.Room("lobby", grace=GRACE)


class Reader:
    """A member that polls. `woken` counts how often its sleep was ended."""

    def __init__(self, room: rooms.Room, name: str, now: float = 0.0) -> None:
        self.room = room
        self.member = room.join(name, now)
        self.woken = 0
        self.poll: rooms.Poll | None = None

    def begin(self) -> Reader:
        self.poll = self.room.begin_poll(self.member)
        self.sleep()
        return self

    def sleep(self) -> None:
        self.room.fall_asleep(self.poll, self._wake)

    def end(self, now: float) -> None:
        self.room.woke_up(self.poll)
        self.room.end_poll(self.poll, now)

    def _wake(self) -> None:
        self.woken += 1


def names(room: rooms.Room) -> list[str]:
    return [member["name"] for member in room.update(0)["members"]]


def texts(room: rooms.Room, after: int = 0) -> list[str]:
    return [message["text"] for message in room.update(after)["messages"]]


# Names


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Ann", "Ann"),
        ("  Ann \t Lee\n", "Ann Lee"),
        ("A\u0308nn", "Änn"),
        ("Ann\u202e", "Ann"),
        ("An\u200bn", "Ann"),
        ("A\x00nn\x1b", "Ann"),
        ("\ud800Ann", "Ann"),
        ("\N{WOMAN}\u200d\N{PERSONAL COMPUTER}", "\N{WOMAN}\u200d\N{PERSONAL COMPUTER}"),
        ("<b>", "<b>"),
        ("x" * rooms.NAME_MAX, "x" * rooms.NAME_MAX),
    ],
)
def test_a_name_is_one_visible_line(given, kept):
    assert rooms.clean_name(given) == kept


@pytest.mark.parametrize("name", ["", "  ", "\n", "\u200d", "\u202e\u2066", "x" * (rooms.NAME_MAX + 1)])
def test_a_name_that_cannot_be_used_is_refused_in_words(name):
    with pytest.raises(rooms.BadInput, match=r"^(Please|This name)"):
        rooms.clean_name(name)


def test_the_second_of_a_name_gets_a_number(room):
    for name in ("Ann", "Ann", "ann", "An\u200dn", "Ann 2"):
        room.join(name, 0)
    assert names(room) == ["Ann", "Ann 2", "ann 3", "An\u200dn 4", "Ann 2 2"]


def test_a_numbered_name_keeps_the_length(room):
    longest = "x" * rooms.NAME_MAX
    room.join(longest, 0)
    assert room.join(longest, 0).name == "x" * (rooms.NAME_MAX - 2) + " 2"


def test_a_name_is_free_again_when_its_owner_left(room):
    room.leave(room.join("Ann", 0).token)
    assert room.join("Ann", 0).name == "Ann"


def test_the_same_name_may_be_in_two_rooms():
    chat = rooms.Chat(["lobby", "rust"])
    assert chat.room("lobby").join("Ann", 0).name == chat.room("rust").join("Ann", 0).name == "Ann"


# Messages and cursors


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("hello", "hello"),
        ("  a\r\nb\rc  ", "a\nb\nc"),
        ("a\tb", "a\tb"),
        ("a\x00b\x1b[0m", "ab[0m"),
        ("a\udfffb", "ab"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("y" * rooms.TEXT_MAX, "y" * rooms.TEXT_MAX),
    ],
)
def test_a_text_keeps_what_can_be_read(given, kept):
    assert rooms.clean_text(given) == kept


@pytest.mark.parametrize("text", ["", " \n ", "\x00", "\u200b\u200d", "y" * (rooms.TEXT_MAX + 1)])
def test_a_text_that_cannot_be_sent_is_refused_in_words(room, text):
    with pytest.raises(rooms.BadInput, match=r"^(There is nothing|This message)"):
        room.post(room.join("Ann", 0), text, 0)
    assert texts(room) == []


def test_a_message_says_who_and_when(room):
    ann = room.join("Ann", 0)
    room.post(ann, "hello", 1234)
    (message,) = room.update(0)["messages"]
    assert message == {"id": 2, "author": "Ann", "author_id": ann.id, "text": "hello", "time": 1234}


def test_each_cursor_gives_exactly_what_came_after_it(room):
    ann = room.join("Ann", 0)
    cursors = []
    for number in range(5):
        cursors.append(room.update(0)["cursor"])
        room.post(ann, str(number), 0)
        room.join("Somebody", 0)  # member changes take revisions in between
    for number, cursor in enumerate(cursors):
        assert texts(room, cursor) == [str(later) for later in range(number, 5)]
    assert texts(room, room.revision) == []


def test_following_the_cursor_loses_nothing_and_repeats_nothing(room):
    ann, seen, cursor = room.join("Ann", 0), [], 0
    for number in range(50):
        room.post(ann, str(number), 0)
        if number % 7 == 0:
            update = room.update(cursor)
            seen += [message["text"] for message in update["messages"]]
            cursor = update["cursor"]
    seen += texts(room, cursor)
    assert seen == [str(number) for number in range(50)]


def test_the_history_is_bounded_and_says_what_it_forgot():
    room = rooms.Room("lobby", history_max=3)
    ann = room.join("Ann", 0)
    sent = [room.post(ann, str(number), 0) for number in range(5)]
    assert texts(room) == ["2", "3", "4"]
    assert room.forgotten == sent[1].id
    assert room.update(sent[1].id)["forgotten"] == sent[1].id, "whoever has seen that message has missed none"


@pytest.mark.parametrize("cursor", [-1, 2, 10**9])
def test_a_cursor_that_was_never_given_out_is_refused(room, cursor):
    room.join("Ann", 0)
    with pytest.raises(rooms.BadInput, match="cursor"):
        room.check_cursor(cursor)


def test_news_is_a_message_or_a_change_of_the_members(room):
    ann = room.join("Ann", 0)
    for change in (
        lambda: room.post(ann, "hello", 0),
        lambda: room.join("Bob", 0),
        lambda: room.leave(ann.token),
        lambda: room.sweep(GRACE),
    ):
        cursor = room.revision
        assert not room.has_news(cursor)
        change()
        assert room.has_news(cursor)


# Members


def test_a_full_room_refuses_and_has_a_seat_again_after_the_grace():
    room = rooms.Room("lobby", members_max=2, grace=GRACE)
    room.join("Ann", 0)
    room.join("Bob", 0)
    with pytest.raises(rooms.RoomFull, match="full"):
        room.join("Cid", GRACE - 0.1)
    assert room.join("Cid", GRACE).name == "Cid"


def test_a_token_is_good_for_its_own_room_and_until_its_member_leaves():
    chat = rooms.Chat(["lobby", "rust"])
    ann = chat.room("lobby").join("Ann", 0)
    assert chat.room("lobby").member(ann.token) is ann
    with pytest.raises(rooms.NotHere):
        chat.room("rust").member(ann.token)
    assert chat.leave(ann.token)
    assert not chat.leave(ann.token)
    with pytest.raises(rooms.NotHere):
        chat.room("lobby").member(ann.token)


def test_an_unknown_room_is_refused_with_the_names_of_the_others():
    with pytest.raises(rooms.UnknownRoom, match="lobby, rust"):
        rooms.Chat(["lobby", "rust"]).room("nowhere")


def test_each_chat_has_an_epoch_of_its_own():
    assert rooms.Chat(["lobby"]).epoch != rooms.Chat(["lobby"]).epoch


def test_the_token_is_never_shown_to_others(room):
    ann = room.join("Ann", 0)
    room.post(ann, "hello", 0)
    assert ann.token not in repr(room.update(0))


# Presence


def test_whoever_never_polls_goes_after_the_grace(room):
    room.join("Ann", 10)
    assert room.next_departure == 10 + GRACE
    room.sweep(10 + GRACE - 0.01)
    assert names(room) == ["Ann"]
    room.sweep(10 + GRACE)
    assert names(room) == []
    assert room.next_departure is None


def test_an_open_poll_keeps_its_member_for_any_time(room):
    Reader(room, "Ann").begin()
    room.sweep(10**9)
    assert names(room) == ["Ann"]


def test_between_two_polls_a_member_stays(room):
    ann = Reader(room, "Ann").begin()
    for now in range(1, 100):
        ann.end(now)
        room.sweep(now + GRACE / 2)
        ann.begin()
    assert names(room) == ["Ann"]


def test_departures_come_in_the_order_of_their_deadlines(room):
    ann, bob, cid = (Reader(room, name).begin() for name in ("Ann", "Bob", "Cid"))
    bob.end(1)
    ann.end(2)
    cid.end(3)
    bob.begin()
    assert room.next_departure == 2 + GRACE
    room.sweep(2 + GRACE)
    assert names(room) == ["Bob", "Cid"]


def test_a_newer_poll_replaces_the_older_one(room):
    ann = Reader(room, "Ann").begin()
    older = ann.poll
    newer = room.begin_poll(ann.member)
    assert older.replaced and not newer.replaced
    assert ann.woken == 1
    room.end_poll(older, 5)
    room.sweep(10**9)
    assert names(room) == ["Ann"], "the end of the older poll says nothing about the member"


def test_leaving_ends_the_open_poll(room):
    ann = Reader(room, "Ann").begin()
    room.leave(ann.member.token)
    assert ann.poll.replaced and ann.woken == 1
    ann.end(1)
    assert room.next_departure is None, "somebody who left is not waited for"


# Waking


def test_a_change_wakes_every_sleeper_once(room):
    readers = [Reader(room, name) for name in ("Ann", "Bob", "Cid")]
    for reader in readers:
        reader.begin()
    room.post(readers[0].member, "one", 0)
    room.post(readers[0].member, "two", 0)
    assert [reader.woken for reader in readers] == [1, 1, 1]


def test_nobody_is_woken_after_waking_up(room):
    ann = Reader(room, "Ann").begin()
    room.woke_up(ann.poll)
    room.post(ann.member, "hello", 0)
    assert ann.woken == 0


def test_the_end_of_a_poll_wakes_one_other_to_watch_the_clock(room):
    ann, bob, cid = readers = [Reader(room, name) for name in ("Ann", "Bob", "Cid")]
    for reader in readers:
        reader.begin()
    ann.end(1)
    assert bob.woken + cid.woken == 1
    watcher, other = (bob, cid) if bob.woken else (cid, bob)
    watcher.end(1)
    assert other.woken == 1, "when the watcher goes too, the next one watches"


def test_a_reader_that_only_watches_the_clock_sees_the_departure(room):
    """The loop of the example, played by hand: Bob sleeps for long, Ann's browser goes away."""
    ann, bob = Reader(room, "Ann").begin(), Reader(room, "Bob").begin()
    cursor = room.revision
    ann.end(100)
    assert bob.woken == 1 and not room.has_news(cursor)
    alarm = room.next_departure
    bob.sleep()
    room.woke_up(bob.poll)
    room.sweep(alarm)
    assert room.has_news(cursor) and names(room) == ["Bob"]


def test_a_woken_sleeper_may_act_on_the_room_at_once(room):
    """`wake` runs inside the change. That it may end polls there must not disturb the waking of the others."""
    woken = []
    for name in ("Ann", "Bob", "Cid"):
        poll = room.begin_poll(room.join(name, 0))
        room.fall_asleep(poll, lambda poll=poll: (woken.append(poll.member.name), room.end_poll(poll, 1)))
    room.join("Dan", 0)
    assert sorted(woken) == ["Ann", "Bob", "Cid"]
