"""What is served over HTTP, beside gRPC and in the same event loop.

server      uvicorn, with bounds; tls: what it shows
app         what is answered: probes and metrics here, and what follows
auth        who asks; safety: what keeps pages of other sites away; base_path: below which path it all stands
dashboard/  pages for people

Calls, which are the servicers' methods that gRPC calls:
    json_api    as JSON on the paths of their annotations, or by connect, on those of gRPC
    calls       one call: its caller, its limits, its answer
    paths       what the annotations' paths match
    binding     from path, query and body to the message; body: no more of it than gRPC would take
    json_body   Protobuf JSON in and out
    errors      what each error is over HTTP

What they are, in OpenAPI:
    openapi     the document; schemas: its messages; comments: its prose
"""
