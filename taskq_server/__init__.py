"""The taskq server: keeps tasks safe and pushes each to a processor when it falls due.

Start at `server.py`, which builds everything, or follow a task:

    rpc/scheduler_service  ->  task_queue  ->  store        a task is enqueued and safe
    dispatcher  ->  store  ->  sessions                     it falls due and is leased
    rpc/processor_service  ->  task_queue  ->  store        it is streamed, run and reported
    firing  ->  store                                       what schedules are due to fire becomes tasks
    admin  ->  store, sessions                              an administrator looks at it, and steers it
    admin_tasks  ->  store, sessions                        and at tasks: lists by a filter, and why one is not running
    bulk  ->  store, sessions                                the same is done to many tasks, a batch at a time
    housekeeper  ->  store                                  what nobody reports is taken back; what is old is pruned
    neighbours   ->  store, sessions                        what other servers on the database have done is heard
    figures  ->  store                                      what was done, and has failed, is written down once a second
    stats  ->  store                                        and told, by minute and hour
    events  ->  store                                       what changes is told to whoever watches, on any server
    gauges  ->  store, sessions  ->  metrics                what waits, and who could take it, for whoever scrapes
    readiness  ->  store                                    whether calls should come here: rpc/health, http/app
    http/json_api  ->  rpc                                  the same calls by HTTP, as JSON
    http/dashboard  ->  rpc                                 pages for people, over the same calls

`session.py` is one session, `elsewhere.py` one to which another server pushes; `rounds.py` says together to the
database what many have to say at about the same time.

`access.py` says who calls and what they may do; `rpc/auth.py` asks it once around every call.

`core/origin.py` is who asks for a change, which the audit keeps; `rpc/origin.py` says it around every call.

`config.py` is every setting; `values.py` is how one is written, `settings.py` reads flags and the environment.

`database.py` is `taskq db`: what is done to a database without a server. `tokens.py` is `taskq token`.
`certificates.py` is what TLS shows; `rpc/tls.py` shows it. `notify.py` tells systemd that the server serves,
`logs.py` is how it logs. `before_grpc.py` is imported before gRPC, which reads the environment then.

`core/` says what a task is and does no I/O. Arrows point down only: `server -> http -> rpc -> schedules ->
{figures, stats} -> {events, dispatcher, housekeeper, firing, gauges, task_queue, admin, bulk, access, sessions} ->
store -> core`; `clock`, `config`, `values`, `metrics` and `task_id` are leaves.
"""
