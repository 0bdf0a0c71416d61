"""What one sees: a live table on a terminal, a line for each change elsewhere."""

from __future__ import annotations

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scheduler_client import TaskState, TaskView

COLOURS = {
    TaskState.SCHEDULED: "cyan",
    TaskState.RUNNING: "yellow",
    TaskState.SUCCEEDED: "green",
    TaskState.FAILED: "red",
    TaskState.CANCELLED: "red",
}


def lateness_ms(view: TaskView) -> float | None:
    """From due to the lease of the last attempt."""
    if view.lease_time is None or view.due_time is None:
        return None
    return (view.lease_time - view.due_time).total_seconds() * 1000


class Display:
    """Shows the dishes as they stand."""

    def __init__(self) -> None:
        self.console = Console()
        self._views: dict[str, TaskView] = {}
        self._notes: list[str] = []
        self._live = Live(console=self.console, refresh_per_second=10, get_renderable=self._table, transient=False)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def show(self, view: TaskView) -> None:
        """A dish as it stands now."""
        before = self._views.get(view.task_id)
        self._views[view.task_id] = view
        changed = before is None or (before.state, before.attempt) != (view.state, view.attempt)
        if changed and not self.console.is_terminal:
            late = lateness_ms(view)
            lateness = "" if late is None or view.state is TaskState.SCHEDULED else f"  {late:6.1f} ms late"
            who = "" if view.state is TaskState.SCHEDULED else view.processor_name
            print(
                f"{view.state:<10} {view.payload()['dish']:<12} attempt {view.attempt}  {who:<6}{lateness}", flush=True
            )

    def note(self, text: str) -> None:
        """Something happened in the kitchen."""
        self._notes.append(text)
        if not self.console.is_terminal:
            print(f"--- {text}", flush=True)

    def _table(self) -> Group:
        table = Table(title="cook_pasta", expand=False)
        for column in ("dish", "task", "state", "cook", "attempt", "late", "progress"):
            table.add_column(column, justify="right" if column in ("attempt", "late") else "left")
        for view in self._views.values():
            late, running = lateness_ms(view), view.state is not TaskState.SCHEDULED
            done = 1.0 if view.state is TaskState.SUCCEEDED else view.progress.fraction if view.progress else 0.0
            table.add_row(
                view.payload()["dish"],
                view.name,
                Text(view.state.lower(), style=COLOURS.get(view.state, "")),
                view.processor_name if running else "",
                str(view.attempt or ""),
                f"{late:.1f} ms" if late is not None and running else "",
                ProgressBar(total=1.0, completed=done, width=20),
            )
        return Group(table, *(Text(note, style="bold") for note in self._notes))
