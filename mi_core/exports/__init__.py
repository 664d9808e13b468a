"""Figure -> bytes: PNG, SVG, PDF, offline HTML, CSV, JSON and a bundle of all, each with its provenance inside."""
