"""The threads of an emulator, their items, and the pages of both."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, TypeVar, get_args

from attrs import define, field

from chatkit_async.emulator._credentials import masked_text
from chatkit_async.emulator._errors import ApiError
from chatkit_async.emulator._fields import Fields
from chatkit_async.emulator._json import JSON
from chatkit_async.emulator._sessions import new_id

if TYPE_CHECKING:
    from chatkit_async.emulator._clock import Clock
    from chatkit_async.emulator._schema import PageQuery

__all__ = ["DeletedCursor", "Thread"]

DeletedCursor: TypeAlias = Literal["error", "ignore", "accept"]
DELETED_CURSORS: tuple[DeletedCursor, ...] = get_args(DeletedCursor)

_STATUSES = ("active", "locked", "closed")
_SHORT_FORMS: Mapping[str, tuple[str, dict[str, JSON], dict[str, JSON]]] = {
    "user": (
        "chatkit.user_message",
        {"type": "input_text"},
        {"attachments": [], "inference_options": None},
    ),
    "assistant": ("chatkit.assistant_message", {"type": "output_text", "annotations": []}, {}),
}

_Key: TypeAlias = tuple[int, int]
_RowT = TypeVar("_RowT")


class Rows(Mapping[str, _RowT], Generic[_RowT]):
    """Rows by id, ordered by creation time and then by insertion. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._order: list[_Key] = []
        self._rows: dict[_Key, _RowT] = {}
        self._keys: dict[str, _Key] = {}
        self._deleted: dict[str, _Key] = {}

    def __repr__(self) -> str:
        """Show the number of rows, and nothing of their content."""
        return f"<{len(self)} rows>"

    def __getitem__(self, row_id: str) -> _RowT:
        """Return a row."""
        return self._rows[self._keys[row_id]]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the present ids, oldest first."""
        with self._lock:
            return iter(sorted(self._keys, key=self._keys.__getitem__))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._keys)

    def all(self) -> list[_RowT]:
        """Return the present rows, oldest first."""
        with self._lock:
            return [self._rows[key] for key in self._order]

    def insert(self, row_id: str, created_at: int, row: _RowT) -> None:
        """Add a row."""
        with self._lock:
            if row_id in self._keys:
                raise ApiError(400, f"The id '{row_id}' is taken.", param="id")
            key = (created_at, next(self._numbers))
            insort(self._order, key)
            self._rows[key] = row
            self._keys[row_id] = key

    def delete(self, row_id: str) -> None:
        """Delete a row, and remember its place for cursors.

        Raises:
            KeyError: The row does not exist.
        """
        with self._lock:
            key = self._deleted[row_id] = self._keys.pop(row_id)
            del self._order[bisect_left(self._order, key)]
            del self._rows[key]

    def page(
        self,
        asked: PageQuery,
        deleted_cursor: DeletedCursor,
        fits: Callable[[_RowT], bool] = lambda _: True,
    ) -> tuple[list[_RowT], bool]:
        """Return a page of rows, and True if more of them follow."""
        with self._lock:
            after = self._place("after", asked.after, deleted_cursor)
            before = self._place("before", asked.before, deleted_cursor)
            earlier, later = (after, before) if asked.ascending else (before, after)
            low = 0 if earlier is None else bisect_right(self._order, earlier)
            high = len(self._order) if later is None else bisect_left(self._order, later)
            places = range(low, high) if asked.ascending else range(high - 1, low - 1, -1)
            fitting = (row for at in places if fits(row := self._rows[self._order[at]]))
            found = list(itertools.islice(fitting, asked.limit + 1))
        return found[: asked.limit], len(found) > asked.limit

    def _place(self, name: str, cursor: str | None, deleted_cursor: DeletedCursor) -> _Key | None:
        if cursor is None or cursor in self._keys:
            return None if cursor is None else self._keys[cursor]
        if deleted_cursor == "ignore":
            return None
        if deleted_cursor == "accept" and cursor in self._deleted:
            return self._deleted[cursor]
        message = f"Invalid '{name}': nothing with id '{masked_text(cursor)}' was found."
        raise ApiError(400, message, param=name)


def _status_type(status: Mapping[str, JSON]) -> str:
    return repr(status["type"])  # its reason is part of the conversation


@define(kw_only=True, eq=False)
class Thread:
    """A thread of the emulator. Its repr shows no user, title or text."""

    id: str
    user: str = field(repr=False)
    """The user that the thread belongs to."""
    created_at: int
    """Unix seconds."""
    title: str | None = field(repr=False)
    status: Mapping[str, JSON] = field(repr=_status_type)
    """`{"type": "active"}`, or with the type `locked` or `closed`, and a `reason`."""
    rows: Rows[Mapping[str, JSON]] = field(factory=Rows[Mapping[str, JSON]])

    @property
    def items(self) -> tuple[Mapping[str, JSON], ...]:
        """The items as the API sends them, oldest first."""
        return tuple(self.rows.all())


class ThreadStore(Rows[Thread]):
    """The threads by id, oldest first."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self._clock = clock
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Start again with a seed."""
        super().__init__()
        self._random = Random(f"threads {seed}")  # noqa: S311 - repeatable on purpose

    def create(self, fields: Fields, beside: Fields | None = None) -> Thread:
        """Add a thread. Its items are in `fields`, or beside them."""
        beside = fields if beside is None else beside
        created_at = fields.get("created_at", Fields.whole, int(self._clock.now()))
        if "object" in fields:
            fields.text("object")
        thread = Thread(
            id=self._id(fields, "cthr", created_at),
            user=fields.name("user"),
            created_at=created_at,
            title=None if fields.is_null("title") else fields.get("title", Fields.text, None),
            status=_status(fields) if "status" in fields else {"type": "active"},
        )
        items = beside.take("items") if "items" in beside else []
        if not isinstance(items, list):
            beside.refuse_type("items", "an array", items)
        fields.refuse_unread()
        beside.refuse_unread()
        for number, item in enumerate(items):
            created_at, _ = self._create_item(thread, item, f"items[{number}]", created_at)
        self.insert(thread.id, thread.created_at, thread)
        return thread

    def create_item(self, thread: Thread, item: JSON) -> Mapping[str, JSON]:
        """Add an item to a thread: `user: text`, `assistant: text`, or an item's fields."""
        return self._create_item(thread, item, "item", int(self._clock.now()))[1]

    def _create_item(
        self, thread: Thread, item: JSON, path: str, now: int
    ) -> tuple[int, Mapping[str, JSON]]:
        fields = Fields(_item_fields(item, path), path)
        created_at = fields.get("created_at", Fields.whole, now)
        row: dict[str, JSON] = {
            "id": self._id(fields, "cti", created_at),
            "object": "chatkit.thread_item",
            "created_at": created_at,
            "thread_id": thread.id,
            "type": fields.name("type"),
        }
        row |= {name: fields.take(name) for name in fields}
        thread.rows.insert(str(row["id"]), created_at, row)
        return created_at, row

    def _id(self, fields: Fields, prefix: str, created_at: int) -> str:
        drawn = new_id(prefix, created_at, self._random)
        return fields.get("id", Fields.name, drawn)


def _status(fields: Fields) -> dict[str, JSON]:
    given = fields.take("status")
    status: dict[str, JSON] = (
        {"type": given} if isinstance(given, str) else fields.mapping("status")
    )
    if status.get("type") not in _STATUSES:
        fields.refuse("status", f"expected one of {', '.join(_STATUSES)}", "invalid_value")
    return status if status["type"] == "active" else {"reason": None, **status}


def _item_fields(item: JSON, path: str) -> dict[str, JSON]:
    if isinstance(item, dict):
        return item
    who, colon, text = item.partition(":") if isinstance(item, str) else ("", "", "")
    if who not in _SHORT_FORMS or not colon:
        message = f"Invalid '{path}': expected 'user: ...', 'assistant: ...' or an item's fields."
        raise ApiError(400, message, param=path, code="invalid_type")
    kind, part, rest = _SHORT_FORMS[who]
    return {"type": kind, "content": [{**part, "text": text.removeprefix(" ")}], **rest}
