"""Figure -> bytes: PNG, SVG, PDF, offline HTML, CSV, JSON, or a bundle, with the provenance inside."""
