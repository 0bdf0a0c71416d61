"""The figures in the documentation, made again from the results that were published: `make bench-pages`."""

from __future__ import annotations

from benchmarks import bloat, idle, lifecycle, scale, scaling
from benchmarks.peers import tables as peers
from benchmarks.report import Shown

ALL: list[Shown] = [
    *lifecycle.SHOWN.values(),
    *scale.SHOWN.values(),
    *idle.SHOWN.values(),
    *peers.SHOWN.values(),
    scaling.SHOWN,
    bloat.SHOWN,
]


def main() -> None:
    for shown in ALL:
        if shown.is_kept:
            shown.publish_again()


if __name__ == "__main__":
    main()
