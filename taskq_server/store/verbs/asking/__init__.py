"""A filter as conditions on tasks, and the way on which a database comes to them soonest.

What a condition says is exact, or holds for more tasks than are meant: then the rows are checked. So nothing that is
damaged in one row hides the others, and both databases mean the same.

question  what is asked of tasks
routes    of their names and what they require
terms     of all else: each term as a condition or a check
texts     texts in columns
finding   where tasks that may be meant are found
"""

from taskq_server.store.verbs.asking.finding import IN_ORDER, ways
from taskq_server.store.verbs.asking.question import CHECKED, SEQ, Asked
from taskq_server.store.verbs.asking.routes import learn_routes
from taskq_server.store.verbs.asking.terms import asked

__all__ = ["CHECKED", "IN_ORDER", "SEQ", "Asked", "asked", "learn_routes", "ways"]
