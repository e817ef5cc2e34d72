"""The ChatKit API, embedded: for tests, demos and development without a key.

For example::

    async with Emulator() as emulator:
        ...  # point a client at emulator.base_url, with emulator.api_key

It keeps sessions and threads in memory, checks requests against the published schema, answers
errors in the API's format, notes every request in a ledger, and fails on demand. It serves on
loopback only. Another process can read and set its state in JSON, under `/_emulator/`.

Where the API's documentation is silent, the emulator makes an assumption:
docs/reference/emulator.md lists all of them.
"""

from chatkit_async.emulator._clock import Clock
from chatkit_async.emulator._emulator import Emulator
from chatkit_async.emulator._faults import Body, Drop, Fault
from chatkit_async.emulator._json import JSON
from chatkit_async.emulator._latency import Exponential, Latency, LogNormal, Uniform
from chatkit_async.emulator._ledger import Ledger, Record, RecordOutcome
from chatkit_async.emulator._limits import FixedWindow, RateLimit, RetryAfter, TokenBucket
from chatkit_async.emulator._replies import PageFault
from chatkit_async.emulator._routes import Operation
from chatkit_async.emulator._schema import CreateParameters, StateVariable
from chatkit_async.emulator._sessions import Session, SessionStatus
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
