"""The report: one offline HTML file, and the page that is served live."""
