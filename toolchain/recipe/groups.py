"""Groups of a recipe's keys: options that several commands share, and options that a help page shows together."""

MODEL_AND_TASK = (
    "model",
    "task",
    "data",
    "text_column",
    "label_column",
    "threshold",
    "split_column",
    "validation_share",
    "text_join",
)
CALIBRATION = ("calib_samples", "calib_method", "smooth", "calib_data", "calibration")
GATE = ("max_drop", "confidence", "strict")

# Options of a TensorRT engine. They do not change the graphs of a bundle.
ENGINE = (
    "calibrator",
    "attention",
    "batch_size",
    "seq_len",
    "buckets",
    "workspace_mb",
    "optimization_level",
    "version_compatible",
    "hardware_compatible",
)

# Options that choose what runs: the model's file, the runtime and the device.
RUNTIME = ("precision", "backend", "url", "token_file", "device", "file", "attention", "cuda_graphs", "compile")

# Options of the energy measurement.
ENERGY = (
    "energy",
    "energy_window",
    "energy_windows",
    "energy_warmup",
    "energy_batch_sizes",
    "rate",
    "require_energy",
    "carbon_intensity",
    "pue",
)

# Options of a run under MLPerf's LoadGen.
MLPERF = ("scenario", "min_duration", "target_qps", "target_latency_ms")

# Options for the evaluation of a bundle. The other options of a recipe are for its build; `attention` is for both.
MEASURED = ("split", "threshold", "limit", "halves", *RUNTIME, *ENERGY, *MLPERF)

# Options with which a user says how far a bundle or a checkpoint from elsewhere can be trusted.
TRUST = ("trust", "allow_pickle", "trust_remote_code", "ignore_unused")

# Heading on a help page -> the keys of its options. The other options are listed under "options".
TITLES = {
    "model and data": (*MODEL_AND_TASK, "split", "limit", "max_length"),
    "precision and quantization": ("precision", *CALIBRATION, "keep", "residual"),
    "where it runs": ("backend", "device", "file", "url", "token_file", "cuda_graphs", "compile"),
    "TensorRT engine": (*ENGINE, "target", "views"),
    "gate": GATE,
    "energy": ENERGY,
    "MLPerf": MLPERF,
    "trust": TRUST,
}
