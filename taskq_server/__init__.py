"""The taskq server: keeps tasks safe and pushes each to a processor when it falls due.

Start at `server.py`, which builds everything, or follow a task:

    rpc/scheduler_service  ->  task_queue  ->  store        a task is enqueued and safe
    dispatcher  ->  store  ->  sessions                     it falls due and is leased
    rpc/processor_service  ->  task_queue  ->  store        it is streamed, run and reported
    firing  ->  store                                       what schedules are due to fire becomes tasks
    admin  ->  store, sessions                              an administrator looks at it, and steers it
    admin_tasks  ->  store, sessions                        and at tasks: lists by a filter, and why one is not running
    housekeeper  ->  store                                  what nobody reports is taken back; what is old is pruned
    neighbours   ->  store, sessions                        what other servers on the database have done is heard
    gauges  ->  store, sessions  ->  metrics                what waits, and who could take it, for whoever scrapes
    readiness  ->  store                                    whether calls should come here: rpc/health, http/app
    http/json_api  ->  rpc                                  the same calls by HTTP, as JSON

`access.py` says who calls and what they may do; `rpc/auth.py` asks it once around every call.

`database.py` is `taskq db`: what is done to a database without a server. `tokens.py` is `taskq token`.
`certificates.py` is what TLS shows; `rpc/tls.py` shows it. `notify.py` tells systemd that the server serves.

`core/` says what a task is and does no I/O. Arrows point down only: `server -> http -> rpc -> schedules ->
{dispatcher, housekeeper, firing, gauges, task_queue, admin, access, sessions} -> store -> core`; `clock`, `config` and
`metrics` are leaves.
"""
