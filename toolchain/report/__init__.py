"""Reports: results side by side as Markdown, CSV, JSON and HTML, and files of power records."""
