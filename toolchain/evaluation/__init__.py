"""The evaluation: what runs, its measurement, its results, and the statistics that compare them."""
