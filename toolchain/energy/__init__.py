"""Energy of inference: load without a pause, windows on ticks of the counter, and figures with their uncertainty."""
