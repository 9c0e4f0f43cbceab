"""Questions about an artefact: verify, explain, tune, doctor, and the accuracy gate."""
