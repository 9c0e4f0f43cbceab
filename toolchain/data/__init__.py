"""Labelled data: reads rows from files or the Hugging Face hub, defines tasks and metrics, and holds the demo."""
