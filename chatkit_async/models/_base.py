"""The base of the models: comparison, hash, pickle and repr, and the tolerance of replies.

A parameter class holds what it is given; it is checked when a call is made of it. A reply class
holds what the API sent, even where that breaks the schema: a promised field that is missing or
invalid raises when it is read, not before.
"""

from collections.abc import Hashable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from types import MappingProxyType, NoneType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
)

import attrs

from chatkit_async.errors import (
    InvalidFieldError,
    MissingFieldError,
    Problem,
    ResponseValidationError,
)

_C = TypeVar("_C")


@dataclass_transform(eq_default=False, frozen_default=True, kw_only_default=True)
def model(cls: type[_C]) -> type[_C]:
    """Apply attrs.frozen, with the methods of `Model` in place of attrs' own."""
    return attrs.frozen(cls, kw_only=True, eq=False, repr=False, getstate_setstate=False)


def fields_of(cls: type[object]) -> "dict[str, attrs.Attribute[Any]]":
    """Return the fields of a model by their names in the API.

    `model` hides attrs from type checkers.
    """
    fields = attrs.fields_dict(cast("type[attrs.AttrsInstance]", cls))
    fields.pop("_extra", None)
    return fields


class Model:
    """Equality, hash and repr over the fields that are set, which in a reply may not be all.

    What attrs writes for these reads every slot, and an unset slot raises.
    """

    __slots__ = ()

    _fields: ClassVar[tuple[str, ...]]

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        cls._fields = tuple(fields_of(cls))

    def _items(self) -> Iterator[tuple[str, object]]:
        """Return the names and values of the fields that are set."""
        for name in self._fields:
            try:
                yield name, object.__getattribute__(self, name)
            except AttributeError:
                continue

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model) or type(other) is not type(self):
            return NotImplemented
        return list(self._items()) == list(other._items())

    def __hash__(self) -> int:
        # Mappings count for equality and not for the hash, as they have none.
        hashable = [(n, v) for n, v in self._items() if _is_hashable(v)]
        return hash((type(self), *hashable))

    def __getstate__(self) -> dict[str, object]:
        return dict(self._items())

    def __setstate__(self, state: Mapping[str, object]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._items())
        return f"{type(self).__name__}({shown})"


def _is_hashable(value: Any) -> bool:
    return isinstance(value, Hashable) and not isinstance(value, Mapping)


class _HasMisfits:
    """The values of a reply's fields that have a wrong type, by key. Unset if there are none."""

    __slots__ = ("_misfits",)

    _misfits: dict[str, object]


@model
class ReplyObject(_HasMisfits, Model):
    """A part of a reply, tolerant of what the API sends.

    A field that fits is held in its slot. A field that the reply lacks leaves its slot unset, so
    that reading it comes to `__getattr__`. The rest is kept as it came: values of a wrong type in
    `_misfits`, and fields that are unknown here in `_extra`. That is a field of attrs, so that
    `attrs.evolve` keeps it.
    """

    _extra: Mapping[str, object] | None = attrs.field(default=None, alias="extra")

    _nullable: ClassVar[frozenset[str]]
    _enumerated: ClassVar[frozenset[str]]
    _kinds: ClassVar[Mapping[str, type]] = {}

    indispensable: ClassVar[tuple[str, ...]] = ()
    """Fields without which a reply is of no use."""

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        super().__attrs_init_subclass__()
        # attrs gives each class its own, which reads every field.
        cls.__replace__ = ReplyObject.__replace__  # type: ignore[method-assign]
        types = {name: get_args(field.type) for name, field in fields_of(cls).items()}
        cls._nullable = frozenset(name for name, args in types.items() if NoneType in args)
        cls._enumerated = frozenset(
            name
            for name, args in types.items()
            if any(isinstance(each, type) and issubclass(each, StrEnum) for each in args)
        )

    @classmethod
    def class_for(cls, members: Mapping[str, object]) -> type[Self]:
        """Return the class that a JSON object becomes: this one, or the one of its `type`."""
        if not cls._kinds:
            return cls
        kind = members.get("type")
        found = cls._kinds.get(kind) if isinstance(kind, str) else None
        return found if found is not None and issubclass(found, cls) else cls

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """Make one of a reply's JSON object, whatever that adds, lacks or bends.

        Raises:
            ParameterError: `data` is not a mapping.
        """
        # The codec knows the models; the models meet it only here.
        from chatkit_async import _codec  # noqa: PLC0415

        return _codec.from_dict(cls, data)

    def to_dict(self) -> dict[str, object]:
        """Return the JSON object that `from_dict` was given: `from_dict(d).to_dict() == d`."""
        data: dict[str, object] = {}
        for name in self._fields:  # not by _items(): a bulk run does this for each row
            try:
                value = object.__getattribute__(self, name)
            except AttributeError:
                continue
            data[name] = value if type(value) in _SCALARS else _plain(value)
        return {**data, **self._invalid(), **(self._extra or {})}

    @property
    def extra(self) -> Mapping[str, object]:
        """The fields of the reply that are unknown here, as decoded JSON."""
        return MappingProxyType(self._extra or {})

    def __replace__(self, /, **changes: object) -> Self:
        """Return a copy with other values, for `copy.replace`. What did not fit the schema stays."""
        for name in changes.keys() - {*self._fields, "extra"}:
            raise TypeError(f"unexpected keyword argument {name!r}")
        extra = changes.pop("extra", self._extra)
        invalid = {k: v for k, v in self._invalid().items() if k not in changes}
        copy = object.__new__(type(self))
        copy.__setstate__(
            {**dict(super()._items()), **changes, "_extra": extra, "_misfits": invalid}
        )
        return copy

    def validate(self) -> Self:
        """Return self, if it has all that the API's schema promises.

        Raises:
            ResponseValidationError: it has not; `.problems` has each JSON path and what is wrong.
        """
        if problems := list(self._problems("$")):
            raise ResponseValidationError(problems)
        return self

    def _problems(self, path: str) -> Iterator[Problem]:
        held = dict(self._items())
        for name in self._fields:
            where = f"{path}.{name}"
            if name in held:
                value = held[name]
                if isinstance(value, ReplyObject):
                    yield from value._problems(where)  # noqa: SLF001 - its own kind
                elif isinstance(value, tuple):
                    for place, member in enumerate(cast("tuple[ReplyObject, ...]", value)):
                        yield from member._problems(f"{where}[{place}]")  # noqa: SLF001 - likewise
                elif name in self._enumerated and not isinstance(value, StrEnum):
                    yield where, f"is {value!r}, which the schema does not know"
            elif name in self._invalid():
                yield where, self._misfit(name)
            else:
                yield where, "is missing"

    def _invalid(self) -> dict[str, object]:
        """Return the values that have a wrong type, by key."""
        try:
            return cast("dict[str, object]", object.__getattribute__(self, "_misfits"))
        except AttributeError:
            return {}

    def _misfit(self, name: str) -> str:
        """Say what is wrong with a field's value, without showing it: it may hold anything."""
        value, kind = self._invalid()[name], fields_of(type(self))[name].type
        given = type(value)
        if get_origin(kind) is Literal and isinstance(value, str):
            return f"is another string than {get_args(kind)[0]!r}"
        if isinstance(value, Mapping) and any(
            get_origin(each) is Mapping for each in get_args(kind)
        ):
            return "holds something else than strings, booleans and numbers"
        return f"has the wrong type: {_JSON_TYPES.get(given, given.__name__)}"

    def _items(self) -> Iterator[tuple[str, object]]:
        yield from super()._items()
        if invalid := self._invalid():
            yield "_misfits", invalid
        if self._extra:
            yield "_extra", dict(self._extra)

    def __repr__(self) -> str:
        shown = [f"{name}={self._show(name, value)}" for name, value in super()._items()]
        shown += [f"{name}=<invalid>" for name in self._fields if name in self._invalid()]
        # Unknown fields are named, never shown: nobody knows what they hold.
        if extra := ", ".join(map(repr, self._extra or ())):
            shown.append(f"extra=<{extra}>")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _show(self, name: str, value: object) -> str:  # noqa: ARG002 - parts of conversations hide by name
        """Return a field's value as the repr shows it."""
        return repr(value)

    # To a type checker every field is there, and a misspelt one is not.
    if not TYPE_CHECKING:  # pragma: no branch

        def __getattr__(self, name: str) -> object:
            derived = getattr(type(self), name, None)
            if isinstance(derived, property):
                # The property raised an AttributeError, so Python asks here. Raise it as it was.
                return derived.fget(self)
            if name == "_extra":
                return None
            if name not in self._fields:
                message = f"{type(self).__name__!r} object has no attribute {name!r}"
                raise AttributeError(message, name=name, obj=None)
            if name in self._invalid():
                message = (
                    f"{name!r} of the API's reply {self._misfit(name)}; "
                    "to_dict() has it as it came, validate() lists all there is"
                )
                raise InvalidFieldError(message, name=name)
            if name in self._nullable:
                return None
            message = (
                f"the API's reply has no {name!r}, which its schema promises; "
                "validate() lists all that is missing"
            )
            raise MissingFieldError(message, name=name)


@cache
def promised_object(cls: type[ReplyObject]) -> str | None:
    """Return the value of `object` that the schema promises for a class."""
    return next(iter(_types_within(cls, "object")), None)


@cache
def member_class(cls: type[ReplyObject]) -> type[ReplyObject] | None:
    """Return the class of what a list has. None: the class is not a list."""
    return next(iter(_types_within(cls, "data")), None)


def _types_within(cls: type[ReplyObject], name: str) -> tuple[Any, ...]:
    field = fields_of(cls).get(name)
    return () if field is None else get_args(field.type)


_SCALARS = frozenset({str, int, float, bool, NoneType})


def _plain(value: object) -> object:
    """Return a field's value as decoded JSON has it."""
    if isinstance(value, ReplyObject):
        return value.to_dict()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, tuple):
        return [_plain(member) for member in cast("tuple[object, ...]", value)]
    return value


def datetime_of(seconds: int, name: str) -> datetime:
    """Return Unix seconds, the value of a field of that name, as an aware datetime in UTC.

    Raises:
        InvalidFieldError: they are out of datetime's range.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        pass
    raise InvalidFieldError(
        f"{name!r} of the API's reply is no date: it is out of range", name=f"{name}_datetime"
    )


_JSON_TYPES: dict[type, str] = {
    NoneType: "null",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}
