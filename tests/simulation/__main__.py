"""Play stories: one seed, and see what happens, or as many as you have time for."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings

from simulation import bulk_story, story, threads_story


def main() -> int:
    """Play; the exit code is 1 if something does not hold."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one, and tell it")
    parser.add_argument("--seeds", type=int, default=2000, help="play so many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--bulk", action="store_true", help="of bulk runs, not of single calls")
    parser.add_argument("--threads", action="store_true", help="of lists of threads")
    options = parser.parse_args()
    kind = bulk_story if options.bulk else threads_story if options.threads else story
    warnings.simplefilter("error")
    if options.seed is not None:
        print(kind.draw(options.seed))
        print(kind.play(options.seed))
        return 0
    started = time.perf_counter()
    broken = []
    for seed in range(options.first, options.first + options.seeds):
        try:
            kind.play(seed)
        except Exception:
            broken.append(seed)
            traceback.print_exc(limit=-3)
            print(
                f"seed {seed}: replay it with {'--bulk ' * options.bulk}"
                f"{'--threads ' * options.threads}--seed {seed}",
                file=sys.stderr,
            )
    took = time.perf_counter() - started
    print(f"{options.seeds} seeds in {took:.1f} s, {len(broken)} broken: {broken[:50]}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
