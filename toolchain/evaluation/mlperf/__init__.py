"""MLPerf's scenarios with its own load generator, LoadGen, which issues the queries, times them and judges the run.

LoadGen runs one test a process and cannot end a test early, so it gets a process of its own (`generator`), which sends
queries through a socket. The thread that opened the runtime processes them (`loadgen`). `log` reads the log that
LoadGen wrote, and `scenario` makes the `mlperf` block of a result from it. LoadGen alone decides whether a run is
valid.
"""
