"""The processor that `taskq conformance` drives to test processor_client."""
