"""gRPC: the only room that knows grpc and the generated messages. A servicer converts, calls, converts.

server           the gRPC server: its options, and what stands once around every call

What stands around a call, from the outside in:
    metering     counts it
    auth         who makes it, and whether they may
    origin       where it comes from, for the audit
    standing     it may stand until its caller goes; a server that stops does not wait for it
    status       what each error is on the wire
    malformed    which field cannot be read

The servicers, and what converts for them:
    scheduler_service                                           convert
    processor_service                                           convert_processor
    schedule_service                                            convert_schedule
    admin_service, of processors and capabilities               convert_admin
    admin_tasks_service, bulk_service                           convert_admin_task, convert_bulk
    audit_service, figures_service                              convert_figures
    health, reflection

checks           every fault of a request is found, and named by its field
pages            lists, a page at a time
tls              the server's credentials
"""
