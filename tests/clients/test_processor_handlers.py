"""Both forms of a handler become the same entry; what cannot work is refused when the processor is made."""

from typing import Any, ClassVar

import pytest

from processor_client import Context, Processor, Task
from processor_client.handler import handlers_of


class Cook(Task):
    CAPABILITIES = ("kitchen.cook", "kitchen.breakfast")
    max_in_flight = 4

    async def process(self) -> str:
        return "cooked"


class Named(Task):
    name = "kitchen.wash"

    def process(self, task: Context) -> object:
        return task.task_id, self.payload


def fry(dish: str) -> str:
    return f"fried {dish}"


class Kitchen(Task):
    CAPABILITIES: ClassVar[dict[str, Any]] = {"boil": "boil_it", "fry": fry, "wash": Named}

    def boil_it(self, dish: str) -> str:
        return f"boiled {dish}"

    def success(self) -> None: ...


class Declared:
    """As scheduler_client declares a function."""

    task_name = "declared"
    function = staticmethod(fry)


def test_a_task_class_runs_every_capability_it_lists() -> None:
    processor = Processor(tasks=[Cook])

    assert processor.capabilities == ["kitchen.cook", "kitchen.breakfast"]


def test_a_task_class_without_capabilities_runs_its_name() -> None:
    assert Processor(tasks=[Named]).capabilities == ["kitchen.wash"]


def test_each_capability_may_lead_to_an_implementation_of_its_own() -> None:
    by_name = {handler.name: handler for handler in handlers_of(Kitchen)}
    context = Context.fake({"dish": "egg"}, task_id="t1")

    assert by_name["boil"].call(context) == "boiled egg"
    assert by_name["fry"].call(context) == "fried egg"
    assert by_name["wash"].call(context) == ("t1", {"dish": "egg"})
    assert by_name["fry"].success is not None


def test_the_original_form_gets_the_task_and_its_payload() -> None:
    (handler,) = handlers_of(Named)

    assert handler.call(Context.fake({"dish": "egg"}, task_id="t1")) == ("t1", {"dish": "egg"})


def test_every_attempt_has_a_task_object_of_its_own() -> None:
    class Counting(Task):
        name = "counting"
        count = 0

        def process(self) -> int:
            self.count += 1
            return self.count

    (handler,) = handlers_of(Counting)

    assert [handler.call(Context.fake()), handler.call(Context.fake())] == [1, 1]


def test_a_declared_function_is_a_handler() -> None:
    processor = Processor(tasks=[Declared()])

    assert processor.capabilities == ["declared"]


def test_a_decorated_function_stays_a_function() -> None:
    processor = Processor()

    @processor.task("greet", max_in_flight=3)
    def greet(name: str) -> str:
        return f"hello {name}"

    assert greet("Ann") == "hello Ann"
    assert processor.capabilities == ["greet"]


def test_two_handlers_for_one_capability_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'kitchen\.cook' has two handlers; must have one"):
        Processor(tasks=[Cook, Cook])


class Nameless(Task):
    def process(self) -> None: ...


class Idle(Task):
    name = "idle"


class Demanding(Task):
    name = "demanding"

    def __init__(self, oven: str) -> None:
        self.oven = oven

    def process(self) -> None: ...


class Curious(Task):
    name = "curious"

    def process(self) -> None: ...

    def success(self, ctx: Context, outcome: str) -> None: ...


class Pointing(Task):
    CAPABILITIES: ClassVar[dict[str, Any]] = {"gone": "no_such_method"}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (Nameless, "Nameless names no task"),
        (Idle, "Idle has no process"),
        (Demanding, "needs oven"),
        (Curious, "asks for 'outcome'"),
        (Pointing, "has no no_such_method"),
        (fry, "is no handler"),
        (Cook(), "is no handler"),
    ],
)
def test_what_cannot_work_is_refused_at_construction(source: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        Processor(tasks=[source])


def test_a_function_that_a_child_could_not_import_is_refused() -> None:
    processor = Processor()

    with pytest.raises(TypeError, match="must be at the top level of a module"):
        processor.task("burn", executor="process")(lambda: None)


def test_an_executor_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 'thread', 'process' or None"):
        Processor().task("fry", executor="proces")(fry)  # type: ignore[arg-type]


def test_an_async_function_does_not_run_in_a_thread() -> None:
    async def cook() -> None: ...

    with pytest.raises(TypeError, match="must be a plain one to run in a thread"):
        Processor().task("cook", executor="thread")(cook)


def test_concurrency_has_bounds() -> None:
    with pytest.raises(ValueError, match="concurrency is 0; must be from 1 to 10,000"):
        Processor(concurrency=0)


async def test_a_processor_without_tasks_does_not_start() -> None:
    with pytest.raises(ValueError, match="must have at least one task"):
        await Processor("127.0.0.1:1").start()
