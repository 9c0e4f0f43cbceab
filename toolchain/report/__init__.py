"""Reports: results side by side as Markdown, CSV, JSON, and as a page of HTML."""
