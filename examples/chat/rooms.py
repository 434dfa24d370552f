"""The chat itself: rooms, who is in them, what was said, and who waits to hear more.

Knows no web framework, no server and no clock. The time is passed in, in seconds of any clock that never goes
back, and a request that waits is known only by the function that wakes it. That is why every rule of the chat
can be tested without a socket.

A room counts its changes. Each message and each change of the member list takes the next `revision`, and a
reader's cursor is the last revision it has seen. So one comparison answers "is there news?", and whatever
happens between two polls is in the next answer: nothing falls into the gap.

    revision   1         2      3     4          5
               Ann came  "hi"   "yo"  Bob came   "hello"
                                ^
                                cursor 3: the answer is the member list and "hello", and the new cursor is 5

A member is present while one of its polls is open. Between two polls it has a short grace to come back:

    join ──> in grace <── poll ends ── polling
               │  └────── poll begins ──> ^
               └── the grace is over, or leave ──> gone
"""

from __future__ import annotations

import itertools
import secrets
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

NAME_MAX = 24
TEXT_MAX = 2000
HISTORY_MAX = 200
MEMBERS_MAX = 100
GRACE_SECONDS = 1.5


class Refused(Exception):
    """Something cannot be done. `str()` is a sentence for the person who asked."""


class BadInput(Refused):
    """A name, a text or a cursor that cannot be used."""


class UnknownRoom(Refused):
    """There is no such room, and none is made on request."""


class RoomFull(Refused):
    """The room holds as many members as it may."""


class NotHere(Refused):
    """The token belongs to nobody in this room: its member left, or the chat was restarted."""


@dataclass(frozen=True, slots=True)
class Message:
    """One thing said. `id` is the revision it made; `time` is Unix time in milliseconds."""

    id: int
    author: str
    author_id: int
    text: str
    time: int


@dataclass(eq=False, slots=True)
class Member:
    """Somebody in a room. Everybody may see `id` and `name`; `token` is the member's own secret."""

    id: int
    name: str
    token: str
    poll: Poll | None = None


@dataclass(eq=False, slots=True)
class Poll:
    """One open question "what is new?". A member has at most one: asking again replaces the older question."""

    member: Member

    @property
    def replaced(self) -> bool:
        return self.member.poll is not self


class Room:
    """One room. `history_max` and `members_max` bound its memory, `grace` is in seconds."""

    def __init__(
        self,
        name: str,
        *,
        history_max: int = HISTORY_MAX,
        members_max: int = MEMBERS_MAX,
        grace: float = GRACE_SECONDS,
        ids: Iterator[int] | None = None,
    ) -> None:
        self.name = name
        self.revision = 0
        self.forgotten = 0
        """The id of the newest message that the history no longer holds."""
        self._history: deque[Message] = deque()
        self._history_max = history_max
        self._members: dict[str, Member] = {}
        self._members_max = members_max
        self._grace = grace
        self._ids = itertools.count(1) if ids is None else ids
        # Who has no open poll, and until when they may come back. The grace is the same for all, so the order of
        # insertion is the order of the deadlines and the first entry is the next to go.
        self._absent: dict[Member, float] = {}
        # The polls that sleep right now. Waking takes a poll out, so none is woken twice.
        self._asleep: dict[Poll, Callable[[], None]] = {}

    # Coming and going

    def join(self, wanted: str, now: float) -> Member:
        """Seats a new member under `wanted`, or under "wanted 2" and so on if that name is taken.

        Raises BadInput for a name that cannot be used and RoomFull.
        """
        name = clean_name(wanted)
        self.sweep(now)
        if len(self._members) >= self._members_max:
            raise RoomFull(f"The room {self.name} is full: {self._members_max} people are there already.")
        member = Member(next(self._ids), self._free_name(name), secrets.token_urlsafe(16))
        self._members[member.token] = member
        self._absent[member] = now + self._grace
        self._changed()
        return member

    def leave(self, token: str) -> bool:
        """Takes a member off the list at once. Says whether there was one with this token."""
        member = self._members.get(token)
        if member is None:
            return False
        self._remove(member)
        self._changed()
        return True

    def member(self, token: str) -> Member:
        """The member with this token. Raises NotHere."""
        member = self._members.get(token)
        if member is None:
            raise NotHere("You are no longer in this room.")
        return member

    def sweep(self, now: float) -> None:
        """Takes off the list whoever did not come back within the grace."""
        gone = list(itertools.takewhile(lambda absent: self._absent[absent] <= now, self._absent))
        for member in gone:
            self._remove(member)
        if gone:
            self._changed()

    @property
    def next_departure(self) -> float | None:
        """When `sweep` will next have something to do, if nobody comes back. None: nobody is absent."""
        return next(iter(self._absent.values()), None)

    # Talking

    def post(self, member: Member, text: str, time: int) -> Message:
        """Says `text` to everybody in the room. Raises BadInput."""
        text = clean_text(text)
        message = Message(self.revision + 1, member.name, member.id, text, time)
        self._history.append(message)
        if len(self._history) > self._history_max:
            self.forgotten = self._history.popleft().id
        self._changed()
        return message

    def has_news(self, after: int) -> bool:
        return self.revision > after

    def check_cursor(self, after: int) -> None:
        """Raises BadInput for a cursor that this room has never given out."""
        if not 0 <= after <= self.revision:
            raise BadInput("This room has never given out that cursor.")

    def update(self, after: int) -> dict[str, object]:
        """What a reader who has seen everything up to the cursor `after` needs to know, ready for JSON.

        A reader whose last message is older than `forgotten` has missed some for good.
        """
        return {
            "messages": [asdict(message) for message in self._messages_after(after)],
            "members": [{"id": member.id, "name": member.name} for member in self._members.values()],
            "cursor": self.revision,
            "forgotten": self.forgotten,
        }

    # Waiting

    def begin_poll(self, member: Member) -> Poll:
        """Marks the member as present until `end_poll`. An older poll of the same member is woken to give up."""
        older, member.poll = member.poll, Poll(member)
        self._absent.pop(member, None)
        if older is not None:
            self._wake(older)
        return member.poll

    def end_poll(self, poll: Poll, now: float) -> None:
        """The poll was answered, or its reader is gone: the grace begins. Belongs into a `finally`.

        Somebody has to look at the clock when the grace ends. The sleeping polls do it, and as all of them may be
        asleep for longer than that, one is woken to set its alarm anew. One is enough: when it ends in turn, it
        wakes the next.
        """
        self._asleep.pop(poll, None)
        if poll.replaced:
            return
        poll.member.poll = None
        self._absent[poll.member] = now + self._grace
        if self._asleep:
            self._wake(next(iter(self._asleep)))

    def fall_asleep(self, poll: Poll, wake: Callable[[], None]) -> None:
        """Says that the poll is about to sleep. `wake` is called at most once, and not after `woke_up`."""
        self._asleep[poll] = wake

    def woke_up(self, poll: Poll) -> None:
        """Says that the poll sleeps no more, for whatever reason. Belongs into a `finally`."""
        self._asleep.pop(poll, None)

    # Inside

    def _changed(self) -> None:
        self.revision += 1
        for poll in list(self._asleep):
            self._wake(poll)

    def _wake(self, poll: Poll) -> None:
        wake = self._asleep.pop(poll, None)
        if wake is not None:
            wake()

    def _remove(self, member: Member) -> None:
        del self._members[member.token]
        self._absent.pop(member, None)
        member.poll = None

    def _messages_after(self, after: int) -> list[Message]:
        newest_first = itertools.takewhile(lambda message: message.id > after, reversed(self._history))
        return list(newest_first)[::-1]

    def _free_name(self, wanted: str) -> str:
        taken = {_look(member.name) for member in self._members.values()}
        return next(name for name in _numbered(wanted) if _look(name) not in taken)


class Chat:
    """A fixed set of rooms. `epoch` is new for each Chat, so that a page notices that it was restarted."""

    def __init__(self, names: Iterable[str], **limits: int | float) -> None:
        ids = itertools.count(1)
        self.epoch = secrets.token_hex(8)
        self._rooms = {name: Room(name, ids=ids, **limits) for name in names}

    @property
    def room_names(self) -> list[str]:
        return list(self._rooms)

    def room(self, name: str) -> Room:
        """The room of this name. Raises UnknownRoom."""
        room = self._rooms.get(name)
        if room is None:
            raise UnknownRoom(f"There is no such room. The rooms are {', '.join(self._rooms)}.")
        return room

    def leave(self, token: str) -> bool:
        """Takes the member with this token out of whichever room it is in. Says whether there was one."""
        return any(room.leave(token) for room in self._rooms.values())


def clean_name(name: str) -> str:
    """The name on one line, without anything invisible. Raises BadInput unless 1 to NAME_MAX characters are left."""
    name = unicodedata.normalize("NFC", name)
    name = " ".join("".join(" " if char.isspace() else char for char in name if _may_be_in_name(char)).split())
    if not _look(name):
        raise BadInput("Please say what you are called.")
    if len(name) > NAME_MAX:
        raise BadInput(f"This name is too long: {NAME_MAX} characters are the most.")
    return name


def clean_text(text: str) -> str:
    """The text without control characters and outer blanks. Raises BadInput unless that is 1 to TEXT_MAX characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs")).strip()
    if not _look(text):
        raise BadInput("There is nothing to send yet.")
    if len(text) > TEXT_MAX:
        raise BadInput(f"This message is too long: {TEXT_MAX} characters are the most.")
    return text


_JOINERS = "\u200c\u200d"
"""Zero width, but some scripts and many emoji are written with them."""


def _may_be_in_name(char: str) -> bool:
    # Format characters could turn the direction of the line around or make two names look the same.
    return char.isspace() or char in _JOINERS or unicodedata.category(char) not in ("Cc", "Cf", "Cs")


def _look(text: str) -> str:
    """What a reader can tell apart: equal for two names that look the same, empty for a text that shows nothing."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if unicodedata.category(char) not in ("Cc", "Cf", "Cs")).strip()


def _numbered(name: str) -> Iterator[str]:
    """Ann, Ann 2, Ann 3 …, never longer than NAME_MAX."""
    yield name
    for number in itertools.count(2):
        suffix = f" {number}"
        yield name[: NAME_MAX - len(suffix)].rstrip() + suffix
