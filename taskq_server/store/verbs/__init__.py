"""What is done to tasks and sessions: plain functions over an open transaction, the same on every database.

Tasks:
    adding          new ones, repeated ones, and those whose key another holds
    leasing         which are due, and whose they become
    ending          how attempts end, and tasks with them; end_batch: as one batch
    reclaiming      what sessions leave behind that end, and attempts that run too long
    rerunning       finished ones that run again
    pruning         removal of what is finished and old
    reading         looking at them; inspecting: one with its past; looking: those that a filter matches
    asking/         what a filter asks, as a database can say it
    backlog         what waits; counting: how much there is

Sessions, capabilities and servers:
    living          who lives, until when, and which server pushes to it
    draining        who is given nothing more; pausing: of which names nothing is dispatched
    listing         what an administrator sees of processors and capabilities
    servers         who lives, and what they leave for each other to hear
    describing      what the database is

Schedules:
    scheduling      what somebody changes about them; schedules: looking at them
    firing          what is due becomes tasks; firing_round: in one transaction; firing_by_hand: when somebody says so

And besides:
    bulk            bulk operations; bulk_batch: one batch of one
    figures         what was done; failures: those that are alike; events: hints of what has changed
    auditing        who has changed what, written with the change; audit_log: read
    tokens          those by which callers come in
"""
