"""One evaluator for every backend, its results and the statistics that compare them."""
