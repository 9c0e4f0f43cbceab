"""MLPerf's scenarios with MLPerf's own load generator, LoadGen: it issues queries, times them and judges the run.

LoadGen runs one test per process and cannot end a test early, so it runs in a process of its own (`generator`), which
sends queries through a socket. The thread that opened the runtime processes them (`loadgen`). `log` reads the log that
LoadGen wrote, and `scenario` makes the `mlperf` block of a result from it. LoadGen alone decides whether a run is
valid.
"""
