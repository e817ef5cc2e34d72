"""The official SDK for Node against the emulator, unchanged, beside this client.

`nox -s node` installs the SDK and runs this. Elsewhere it is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from conversation import CONVERSATION
from patience import PATIENCE

from chatkit_async import ChatKit
from chatkit_async.emulator import Emulator

pytestmark = [
    pytest.mark.unmeasured,
    pytest.mark.skipif("OPENAI_NODE" not in os.environ, reason="needs `nox -s node`"),
]

SCRIPT = Path(__file__).with_name("threads.mjs")


@pytest.mark.parametrize("deleted_cursor", ["error", "ignore"])
def test_node_sdk_sees_the_same_threads(deleted_cursor):
    with Emulator(deleted_cursor=deleted_cursor) as emulator:
        threads = [
            emulator.add_thread(user="ada", title=str(number), items=CONVERSATION)
            for number in range(5)
        ]
        other = emulator.add_thread(user="bob", status={"type": "locked", "reason": "handed over"})
        settings = {"api_key": emulator.api_key, "base_url": emulator.base_url}
        with ChatKit(**settings) as client:
            listed = [each.to_dict() for each in client.threads.list(user="ada", order="asc")]
            items = [
                each.to_dict() for each in client.threads.list_items(threads[1].id, order="asc")
            ]
        done = subprocess.run(
            ["node", SCRIPT, emulator.base_url, emulator.api_key, threads[1].id],  # noqa: S607
            stdout=subprocess.PIPE,
            check=True,
            timeout=PATIENCE,
        )
        got = json.loads(done.stdout)

    assert got["listed"] == listed
    assert got["retrieved"] == listed[1]
    assert got["items"] == items
    assert got["deleted"]["id"] == threads[1].id
    assert got["deleted"]["deleted"] is True
    assert got["missing"]["status"] == 404
    assert threads[1].id in got["missing"]["message"]
    left = [thread.id for thread in threads if thread is not threads[1]]
    assert sorted(got["left"]) == sorted([*left, other.id])
