"""The ChatKit API, embedded: for tests, demos and work without network or key.

For example::

    async with Emulator() as emulator:
        ...  # point a client at emulator.base_url, with emulator.api_key

It keeps sessions and threads in memory, checks requests as the published schema does, answers errors in the
API's shape, notes every request in a ledger, and fails when told to. It serves on loopback only.
Another process reads and sets its state in JSON, under `/_emulator/`.

What the real service does and its documentation does not say is assumed: docs/reference/emulator.md
lists each assumption.
"""

from chatkit_async.emulator._clock import Clock
from chatkit_async.emulator._emulator import Emulator
from chatkit_async.emulator._faults import Body, Drop, Fault
from chatkit_async.emulator._fields import JSON
from chatkit_async.emulator._latency import Exponential, Latency, LogNormal, Uniform
from chatkit_async.emulator._ledger import Ledger, Record, RecordOutcome
from chatkit_async.emulator._limits import FixedWindow, RateLimit, RetryAfter, TokenBucket
from chatkit_async.emulator._replies import Operation, PageFault
from chatkit_async.emulator._schema import CreateParameters, StateVariable
from chatkit_async.emulator._state import Session, SessionStatus
from chatkit_async.emulator._threads import DeletedCursor, Thread

__all__ = [
    "JSON",
    "Body",
    "Clock",
    "CreateParameters",
    "DeletedCursor",
    "Drop",
    "Emulator",
    "Exponential",
    "Fault",
    "FixedWindow",
    "Latency",
    "Ledger",
    "LogNormal",
    "Operation",
    "PageFault",
    "RateLimit",
    "Record",
    "RecordOutcome",
    "RetryAfter",
    "Session",
    "SessionStatus",
    "StateVariable",
    "Thread",
    "TokenBucket",
    "Uniform",
]
