"""Reports: results side by side as Markdown, CSV, JSON and HTML, and the files that power measurements are saved to."""
