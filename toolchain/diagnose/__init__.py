"""Diagnose an artefact (`verify`, `explain`, `tune`) or a machine (`doctor`), and gate artefacts by their accuracy."""
