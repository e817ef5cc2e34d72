import gc
from weakref import WeakSet, ref

import pytest

from chatkit_async import _fork


class Part:
    starts = 0

    def after_fork(self):
        self.starts += 1


@pytest.fixture(autouse=True)
def _no_parts(monkeypatch):
    """Leave alone the clients of other tests."""
    monkeypatch.setattr(_fork, "_parts", WeakSet())


def test_parts_start_over_in_a_child():
    parts = [Part(), Part()]
    _fork.start_over_in_child(*parts)
    _fork._after_fork()
    assert [part.starts for part in parts] == [1, 1]


def test_a_part_is_not_kept_alive():
    part = Part()
    _fork.start_over_in_child(part)
    alive = ref(part)
    del part
    gc.collect()
    assert alive() is None
    _fork._after_fork()


def test_what_is_the_parents_is_kept_alive(monkeypatch):
    monkeypatch.setattr(_fork, "_parents", [])
    belonging = Part()
    _fork.leave_to_parent(belonging)
    alive = ref(belonging)
    del belonging
    gc.collect()
    assert alive() is not None
