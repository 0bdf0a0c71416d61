"""The scheduler: which dishes are wanted, and for when.

`python -m examples.cook_pasta.orders` orders lunch again and again, until SIGTERM.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from scheduler_client import MainScheduler, Retry, Task


class Dish(Task):
    """What all dishes share."""

    wait: float = 0
    """How many seconds from now the cook should begin."""
    tags = ("pasta",)
    retry = Retry(max_attempts=5, initial_delay="200ms")
    run_timeout = "1m"

    def schedule(self) -> timedelta:
        return timedelta(seconds=self.wait)


class BoilPasta(Dish):
    """Cooked by everybody."""

    name = "kitchen.boil_pasta"
    config = {"dish": "spaghetti", "seconds": 2.0}


class MakeSauce(Dish):
    """Mario's alone."""

    name = "kitchen.make_sauce"
    config = {"dish": "pesto", "seconds": 1.5}
    priority = 5


class BakeBread(Dish):
    """Luigi's alone."""

    name = "kitchen.bake_bread"
    config = {"dish": "focaccia", "seconds": 1.8}


def dinner() -> Iterator[Dish]:
    """Fifteen dishes, to be begun within the next nine seconds."""
    shapes = ("spaghetti", "penne", "fusilli", "linguine", "farfalle", "rigatoni", "orecchiette")
    for course, shape in enumerate(shapes):
        yield at(1 + 1.2 * course, BoilPasta(dish=shape))
    for course, sauce in enumerate(("pesto", "ragu", "arrabbiata", "carbonara")):
        yield at(1.5 + 1.7 * course, MakeSauce(dish=sauce))
    for course, bread in enumerate(("focaccia", "ciabatta", "grissini", "piadina")):
        yield at(1.3 + 2.1 * course, BakeBread(dish=bread))


def at(seconds: float, dish: Dish) -> Dish:
    dish.wait = seconds
    return dish


def main() -> None:
    lunch = MainScheduler(name="lunch")
    lunch.every(seconds=5).do(BoilPasta, dish="penne")
    lunch.every(seconds=15).do(MakeSauce, dish="arrabbiata")
    lunch.run()


if __name__ == "__main__":
    main()
