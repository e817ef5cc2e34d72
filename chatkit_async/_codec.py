"""JSON to models and back, with cattrs: strict on the way out, tolerant on the way in."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from math import isfinite
from operator import index
from types import NoneType
from typing import Any, SupportsIndex, TypeAlias, TypeGuard, TypeVar, cast, get_args, get_origin

from cattrs import Converter
from cattrs.errors import BaseValidationError, ClassValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from chatkit_async import models
from chatkit_async._checks import (
    NOT_UTF8,
    PRINTABLE_BITS,
    described,
    mapping_advice,
    text_problem,
    whole_number_problem,
)
from chatkit_async.errors import ParameterError, Problem
from chatkit_async.models._base import ReplyObject, fields_of
from chatkit_async.options import RequestOptions
from chatkit_async.secret import Secret

Hook = Callable[[Any, Any], Any]

# One converter of our own: cattrs' global one is everybody's.
_converter = Converter(detailed_validation=False, forbid_extra_keys=True)


def loads(content: bytes) -> object:
    """Decode JSON: UTF-8, as it should be, or UTF-16 or UTF-32, whatever charset the reply names.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return _loads(content.decode())
    except ValueError:
        pass  # json.loads finds out what else it is, and takes longer
    return json.loads(content)


_loads = json.JSONDecoder().decode
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


# Plain values, as they are: cattrs' own hooks would turn null into "None" and True into 1.0 ---------


def _str(value: object, _: object = None) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _bool(value: object, _: object = None) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"must be true or false, got {described(value)}")
    return value


def _int(value: object, _: object = None) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


_converter.register_structure_hook(str, _str)
_converter.register_structure_hook(bool, _bool)
_converter.register_structure_hook(int, _int)


# Replies: field by field, whatever the API adds, lacks or bends ----------------------------------

R = TypeVar("R", bound=ReplyObject)


def from_dict(cls: type[R], data: object) -> R:
    """Make a reply object of a JSON object, whatever that adds, lacks or bends.

    Raises:
        ParameterError: `data` is not a mapping.
    """
    if not isinstance(data, Mapping):
        raise ParameterError([("data", f"must be a mapping, got {described(data)}")])
    # A dict of its own: another mapping, as a defaultdict, may make up what it lacks.
    members = dict(cast("Mapping[str, object]", data))
    return of_json(cls.class_for(members), members)


def of_json(cls: type[R], members: dict[str, object]) -> R:
    """Make a reply object of a decoded JSON object.

    What fits goes into its slot. A list of a thousand items comes through here, so a value that has
    the exact type of its field is not looked at any further.
    """
    reply = object.__new__(cls)
    slots = _slots_of(cls)  # type: ignore[arg-type] # mypy takes the hash of a class for its objects'
    misfits: dict[str, object] = {}
    extra: dict[str, object] = {}
    for name, value in members.items():
        slot = slots.get(name)
        if slot is None:
            extra[name] = value
            continue
        fill, exact, convert, kind = slot
        if type(value) is exact:
            fill(reply, value)
            continue
        try:
            fill(reply, convert(value, kind))
        except Exception:  # noqa: BLE001 - whatever keeps it from fitting, it is kept as it came
            misfits[name] = value
    if misfits:
        _fill(cls, "_misfits")(reply, misfits)
    if extra:
        _fill(cls, "_extra")(reply, extra)
    return reply


Slot: TypeAlias = tuple[Callable[[object, object], None], type | None, Hook, object]
"""The setter of a field, the type of values that need no conversion, the conversion, the type."""


@cache
def _slots_of(cls: type[ReplyObject]) -> dict[str, Slot]:
    """Return the fields of a class by their names in the API."""
    return {name: _slot(cls, name, field.type) for name, field in fields_of(cls).items()}


def _slot(cls: type[ReplyObject], name: str, kind: Any) -> Slot:
    exact = next((each for each in (str, int, bool) if each in {kind, *_optional_of(kind)}), None)
    return _fill(cls, name), exact, _converter.get_structure_hook(kind), kind


def _optional_of(kind: object) -> tuple[object, ...]:
    """Return `(str,)` for `str | None`."""
    args = get_args(kind)
    return args[:1] if len(args) == 2 and args[1] is NoneType else ()  # noqa: PLR2004


def _fill(cls: type[ReplyObject], name: str) -> Callable[[object, object], None]:
    """Return what sets a slot of a frozen object."""
    return cast("Callable[[object, object], None]", getattr(cls, name).__set__)


def _secret(value: object, _: object) -> Secret:
    return Secret(_str(value))


def _is_open_enum(kind: object) -> bool:
    """True for an enumeration that may grow: `SomeStrEnum | str`."""
    return any(isinstance(each, type) and issubclass(each, StrEnum) for each in get_args(kind))


def _open_enum(kind: Any) -> Hook:
    known = {member.value: member for each in get_args(kind) if each is not str for member in each}

    def structure(value: object, _: object) -> str:
        text = _str(value)
        return cast("str", known.get(text, text))

    return structure


def _is_optional_object(kind: object) -> bool:
    """True for an object of a reply that may be null: `SomeReplyObject | None`."""
    args = get_args(kind)
    return NoneType in args and any(_is_object(each) for each in args)


def _optional_object(kind: Any) -> Hook:
    cls = next(filter(_is_object, get_args(kind)))
    return lambda value, _: None if value is None else _member(cls, value)


def _is_object(kind: object) -> TypeGuard[type[ReplyObject]]:
    return isinstance(kind, type) and issubclass(kind, ReplyObject)


def _is_objects(kind: object) -> bool:
    """True for an array of a reply's objects: `tuple[SomeReplyObject, ...]`."""
    return get_origin(kind) is tuple and _is_object(get_args(kind)[0])


def _objects(kind: Any) -> Hook:
    cls = get_args(kind)[0]

    def structure(value: object, _: object) -> tuple[ReplyObject, ...]:
        if not isinstance(value, list):
            raise TypeError
        return tuple([_member(cls, member) for member in cast("list[object]", value)])

    return structure


def _member(cls: type[R], value: Any) -> R:
    return of_json(cls.class_for(value), value)  # what is not an object has no items: it raises


def _optional(hook: Hook) -> Hook:
    return lambda value, kind: None if value is None else hook(value, kind)


def _state_variables(value: object, _: object) -> dict[str, object] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError
    variables = dict(cast("Mapping[object, object]", value))
    for key, variable in variables.items():
        if not isinstance(key, str) or not isinstance(variable, str | bool | int | float):
            raise TypeError
    return cast("dict[str, object]", variables)


def _type_is(wanted: object) -> Callable[[Any], bool]:
    return lambda given: given == wanted


_converter.register_structure_hook_func(_is_object, lambda value, cls: from_dict(cls, value))
_converter.register_structure_hook(Secret, _secret)
_converter.register_structure_hook_func(_type_is(str | None), _optional(_str))
_converter.register_structure_hook_func(_type_is(int | None), _optional(_int))
_converter.register_structure_hook_factory(_is_open_enum, _open_enum)
_converter.register_structure_hook_factory(_is_optional_object, _optional_object)
_converter.register_structure_hook_factory(_is_objects, _objects)
_converter.register_structure_hook_func(
    _type_is(fields_of(models.ChatKitWorkflow)["state_variables"].type), _state_variables
)


# Parameters: every problem is found, and named by its path ----------------------------------------


def create_params(
    given: models.SessionCreateParams | Mapping[str, object],
) -> models.SessionCreateParams:
    """Check the parameters of a session, and bring all their forms to the classes' own.

    Raises:
        ParameterError: with every problem there is.
    """
    problems: list[Problem]
    try:
        return cast("models.SessionCreateParams", _session(given, models.SessionCreateParams))
    except BaseValidationError as group:
        problems = list(_flattened(group))
    except TypeError as error:
        problems = [("params", str(error))]
    # Raised out here, so that it does not drag cattrs' groups and their frames along.
    raise ParameterError(problems)


def encode(params: models.SessionCreateParams | None, extra_body: Mapping[str, object]) -> bytes:
    """Encode checked parameters, with `extra_body` merged in, object by object."""
    body = {} if params is None else cast("dict[str, object]", _converter.unstructure(params))
    if extra_body:
        body = merged(body, extra_body)
    return _dumps(body).encode()


def merged(body: Mapping[str, object], extra: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of both, with objects merged. If both have a value, `extra` decides."""
    fields = {**body, **extra}
    for key in body.keys() & extra.keys():
        ours, theirs = body[key], extra[key]
        if isinstance(ours, dict) and isinstance(theirs, dict):
            fields[key] = merged(cast("dict[str, object]", ours), cast("dict[str, object]", theirs))
    return fields


def extra_body_problems(extra_body: Mapping[str, object]) -> list[Problem]:
    """Return the problems of those fields of `extra_body` that are not JSON."""
    return [
        (f"extra_body{_step(key)}", sentence)
        for key, value in extra_body.items()
        if (sentence := _not_json(key, value)) is not None
    ]


def _not_json(key: object, value: object) -> str | None:
    if not isinstance(key, str):
        return f"must have strings as keys, got {described(key)}"
    try:
        _dumps({key: value}).encode()
    except UnicodeEncodeError:
        return NOT_UTF8
    except (TypeError, ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    return None


def _scalar(value: object) -> object:
    """Return a scalar of numpy or its like as Python's own. Anything else stays as it is."""
    if isinstance(value, str | int | float):
        return value
    # numpy's `True_` has no `__index__`.
    if getattr(value, "shape", None) == ():
        return cast("Any", value).item()
    return index(cast("SupportsIndex", value)) if hasattr(value, "__index__") else value


def _flag(value: object, _: object = None) -> bool:
    return _bool(_scalar(value))


def _text(value: object, _: object = None) -> str:
    if (problem := text_problem(value)) is not None:
        raise ValueError(problem)
    return cast("str", value)


def _positive(value: object, _: object = None) -> int:
    value = _scalar(value)
    if isinstance(value, float) and value.is_integer():
        raise TypeError(
            f"must be a whole number of type int, got the float {value}; floats are not converted, "
            "because a calculated one may be slightly off: pass int(...) or round(...)"
        )
    if (problem := whole_number_problem(value, least=1)) is not None:
        raise ValueError(problem)
    number = cast("int", value)
    if number.bit_length() > PRINTABLE_BITS:
        raise ValueError(f"must be smaller, got {described(number)}")
    return number


def _anchor(value: object, _: object) -> str:
    if value != "created_at":
        raise ValueError("must be 'created_at', which is the only anchor")
    return "created_at"


def _variables(value: object, _: object) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a mapping, got {described(value)}{mapping_advice(value)}")
    given = cast("Mapping[object, object]", value)
    variables = {key: _scalar(variable) for key, variable in given.items()}
    problems = [
        (_step(key), sentence)
        for key, variable in variables.items()
        if (sentence := _not_a_variable(key, variable)) is not None
    ]
    if problems:
        raise _ProblemsBelow(problems)
    return cast("dict[str, object]", variables)


def _not_a_variable(key: object, variable: object) -> str | None:
    if not isinstance(variable, str | bool | int | float):
        return f"must be a string, a boolean or a number, got {described(variable)}"
    if isinstance(variable, float) and not isfinite(variable):
        return f"must be finite, got {variable}"
    return _not_json(key, variable)


class _ProblemsBelow(Exception):  # noqa: N818 - it never leaves this module
    """Several problems below one field."""


def _object(cls: type[object], also: str = "", **checks: Hook) -> Hook:
    """Make the check of a parameter class: of an object of it, or of a mapping with its keys.

    `also` is what else its caller takes, for the error.
    """
    fields = fields_of(cls)
    hooks: dict[str, Any] = {
        name: override(struct_hook=_optional(check) if fields[name].default is None else check)
        for name, check in checks.items()
    }
    structure = make_dict_structure_fn(cls, _converter, _cattrs_detailed_validation=True, **hooks)
    # None means not given. The anchor is sent although it has a default.
    omissions: dict[str, Any] = {
        name: override(omit_if_default=field.default is None) for name, field in fields.items()
    }
    _converter.register_unstructure_hook(
        cls, make_dict_unstructure_fn(cls, _converter, **omissions)
    )

    def check(value: object, _: object) -> object:
        if isinstance(value, cls):
            return structure({name: getattr(value, name) for name in fields}, cls)
        if isinstance(value, Mapping):
            return structure(cast("Mapping[str, Any]", value), cls)
        given = f"{described(value)}{mapping_advice(value)}"
        raise TypeError(f"must be {also}a {cls.__name__} or a mapping, got {given}")

    return check


_tracing = _object(models.WorkflowTracingParam, enabled=_flag)
_workflow_object = _object(
    models.ChatSessionWorkflowParam,
    "a workflow's id, ",
    id=_text,
    version=_text,
    state_variables=_variables,
    tracing=_tracing,
)
_configuration = _object(
    models.ChatSessionChatKitConfigurationParam,
    automatic_thread_titling=_object(models.AutomaticThreadTitlingParam, enabled=_flag),
    file_upload=_object(
        models.FileUploadParam, enabled=_flag, max_file_size=_positive, max_files=_positive
    ),
    history=_object(models.HistoryParam, enabled=_flag, recent_threads=_positive),
)
_expires_after_object = _object(
    models.ChatSessionExpiresAfterParam,
    "whole seconds, a timedelta, ",
    seconds=_positive,
    anchor=_anchor,
)
_rate_limits_object = _object(
    models.ChatSessionRateLimitsParam,
    "requests per minute, ",
    max_requests_per_1_minute=_positive,
)


SHORT_FORMS = {
    "workflow": "id",
    "expires_after": "seconds",
    "rate_limits": "max_requests_per_1_minute",
}
"""The fields of a session that have a short form, and the field that the short form sets."""


def _or_short(
    whole: Hook, name: str, cls: type[object], kinds: tuple[type[object], ...], check: Hook
) -> Hook:
    """Make the check of a field that may be given in its short form, as one of these kinds."""

    def structure(value: object, kind: object) -> object:
        value = _scalar(value)
        if isinstance(value, kinds):
            return cls(**{SHORT_FORMS[name]: check(value, None)})
        return whole(value, kind)

    return structure


def _whole_seconds(value: object, _: object) -> int:
    if isinstance(value, timedelta):
        if value.microseconds:
            raise ValueError(f"must be whole seconds, got {value.total_seconds()}")
        value = value // timedelta(seconds=1)
    return _positive(value)


_session = _object(
    models.SessionCreateParams,
    user=_text,
    workflow=_or_short(
        _workflow_object, "workflow", models.ChatSessionWorkflowParam, (str,), _text
    ),
    chatkit_configuration=_configuration,
    expires_after=_or_short(
        _expires_after_object,
        "expires_after",
        models.ChatSessionExpiresAfterParam,
        (int, float, timedelta),
        _whole_seconds,
    ),
    rate_limits=_or_short(
        _rate_limits_object,
        "rate_limits",
        models.ChatSessionRateLimitsParam,
        (int, float),
        _positive,
    ),
)


def _flattened(group: BaseValidationError, path: str = "") -> Iterator[Problem]:
    """Yield the problems in cattrs' exception groups, each with its path."""
    located, others = cast("ClassValidationError", group).group_exceptions()
    for error, note in located:
        where = f"{path}{_step(note.name)}".lstrip(".")
        match error:
            case BaseValidationError():
                yield from _flattened(error, where)
            case _ProblemsBelow():
                yield from ((where + step, sentence) for step, sentence in error.args[0])
            case KeyError():
                yield where, "is required"
            case _:
                yield where, str(error)
    for error in others:
        names = list(fields_of(group.cl))
        for key in sorted(cast("ForbiddenExtraKeysError", error).extra_fields, key=str):
            yield f"{path}{_step(key)}".lstrip("."), _unknown(str(key), names)


def _unknown(key: str, names: list[str]) -> str:
    if key in RequestOptions.__annotations__:
        return f"is an option of the calls, not a field: create_many(rows, {key}=...)"
    guess = "".join(f", did you mean {name!r}?" for name in get_close_matches(key, names, 1))
    hint = "" if guess else ": what the API has gained since goes into extra_body"
    return f"is unknown{guess}{hint}"


def _step(key: object) -> str:
    """Return a step of a path. A key that would be hard to read in one is quoted."""
    if isinstance(key, str) and key.isprintable() and key.strip() and "." not in key:
        return f".{key}"
    return f"[{key!a}]"
