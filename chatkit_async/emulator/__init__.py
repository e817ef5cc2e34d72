"""The ChatKit sessions API, embedded: for tests, demos and work without network or key.

For example::

    async with Emulator() as emulator:
        ...  # point a client at emulator.base_url, with emulator.api_key

It keeps sessions in memory, checks requests as the published schema does, answers errors in the
API's shape, notes every request in a ledger, and fails when told to. It serves on loopback only.

What the real service does and its documentation does not say is assumed here:

- Both operations answer 200. An unknown path is a 404 and a wrong method a 405, before the key is
  looked at.
- Checks come in this order: key, rate limit, `OpenAI-Beta`, `Content-Type`, JSON, schema, workflow.
  An error names the first problem only.
- A missing or wrong `OpenAI-Beta`, an unsupported `Content-Type` and a body that is no JSON object
  are a 400.
- A field the schema does not know is accepted. `null` is not accepted for a field that the schema
  does not allow to be null, and `5.0` is no integer.
- `state_variables` comes back as it was sent, an empty object included; null when it was left out.
- The limits on uploads come back with their defaults also when uploads are disabled.
- `created_at` is the second in which the request arrived; a session has expired once the clock
  reaches `expires_at`.
- Cancelling is idempotent: a session that is cancelled or expired already comes back as it is,
  with 200. Cancelling an id that does not exist is a 404 with `param` `session_id`.
- Every key sees every session; organization and project are noted, not enforced.
- A rate limit is the project's: both operations of all keys count together, unless the limit says
  otherwise. A request counts once its key is accepted, whatever becomes of it then, and is told
  where it left the limit. One that is refused with 429 takes nothing from it.
- A session's request limit is noted, not enforced: it is for the browser's requests.
- The `code` of most errors, and every message.
- Organization and project headers are echoed when they were sent, never made up.
"""

from chatkit_async.emulator._clock import Clock
from chatkit_async.emulator._emulator import Emulator
from chatkit_async.emulator._faults import Body, Drop, Fault
from chatkit_async.emulator._fields import JSON
from chatkit_async.emulator._latency import Exponential, Latency, LogNormal, Uniform
from chatkit_async.emulator._ledger import Ledger, Outcome, Record
from chatkit_async.emulator._limits import FixedWindow, RateLimit, RetryAfter, TokenBucket
from chatkit_async.emulator._replies import Operation
from chatkit_async.emulator._schema import CreateParameters, StateVariable
from chatkit_async.emulator._state import Session, SessionStatus

__all__ = [
    "JSON",
    "Body",
    "Clock",
    "CreateParameters",
    "Drop",
    "Emulator",
    "Exponential",
    "Fault",
    "FixedWindow",
    "Latency",
    "Ledger",
    "LogNormal",
    "Operation",
    "Outcome",
    "RateLimit",
    "Record",
    "RetryAfter",
    "Session",
    "SessionStatus",
    "StateVariable",
    "TokenBucket",
    "Uniform",
]
