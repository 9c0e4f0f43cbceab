"""MLPerf's scenarios by its own load generator, LoadGen: it asks, times and judges; we only answer.

LoadGen has one test a process and no way to end one early, so it gets a process of its own (`generator`), which asks
through a pipe (`wire`), and the thread that opened the runtime answers (`ask`, `answer`). `log` reads what LoadGen has
written, `scenario` makes a result's block of it. Whether a run is valid is LoadGen's word, never ours.
"""
