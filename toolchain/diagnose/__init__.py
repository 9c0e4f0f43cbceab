"""Diagnosis of an artefact (verify, explain, tune) and of a machine (doctor), and the accuracy gate."""
