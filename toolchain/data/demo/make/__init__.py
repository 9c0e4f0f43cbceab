"""The scripts that generate the texts of the demo and train its models."""
