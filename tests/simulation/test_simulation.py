"""Thousands of stories, each from a seed: see `story`."""

from __future__ import annotations

import os

import pytest
from simulation import bulk_story, story, threads_story

SEEDS = 2000
AT_ONCE = 50
BULK_SEEDS = 200
BULK_AT_ONCE = 10
THREADS_SEEDS = 100
THREADS_AT_ONCE = 5
# Other seeds each time, so that they add up; in CI the same ones, so that red is the change's doing.
FIRST = 0 if "CI" in os.environ else int.from_bytes(os.urandom(3)) * SEEDS

pytestmark = pytest.mark.unmeasured


@pytest.mark.sweep(every=40)
@pytest.mark.parametrize("batch", range(SEEDS // AT_ONCE))
def test_what_must_hold_does(batch):
    for seed in range(FIRST + batch * AT_ONCE, FIRST + (batch + 1) * AT_ONCE):
        try:
            story.play(seed)
        except BaseException as error:
            error.add_note(f"replay it: nox -s soak -- --seed {seed}")
            raise


@pytest.mark.sweep(every=10)
@pytest.mark.parametrize("seed", range(20))
def test_a_seed_tells_the_same_story_each_time(seed):
    assert story.play(seed) == story.play(seed)


@pytest.mark.sweep(every=20)
@pytest.mark.parametrize("batch", range(BULK_SEEDS // BULK_AT_ONCE))
def test_every_row_of_a_bulk_run_is_accounted_for(batch):
    for seed in range(FIRST + batch * BULK_AT_ONCE, FIRST + (batch + 1) * BULK_AT_ONCE):
        try:
            bulk_story.play(seed)
        except BaseException as error:
            error.add_note(f"replay it: nox -s soak -- --bulk --seed {seed}")
            raise


@pytest.mark.sweep(every=10)
@pytest.mark.parametrize("seed", range(10))
def test_a_seed_tells_the_same_bulk_run_each_time(seed):
    assert bulk_story.play(seed) == bulk_story.play(seed)


@pytest.mark.sweep(every=10)
@pytest.mark.parametrize("batch", range(THREADS_SEEDS // THREADS_AT_ONCE))
def test_every_thread_is_listed_once(batch):
    for seed in range(FIRST + batch * THREADS_AT_ONCE, FIRST + (batch + 1) * THREADS_AT_ONCE):
        try:
            threads_story.play(seed)
        except BaseException as error:
            error.add_note(f"replay it: nox -s soak -- --threads --seed {seed}")
            raise


def test_seed_tells_the_same_story_of_threads():
    assert threads_story.play(7) == threads_story.play(7)
