"""The OGC API of a city: landing page, conformance, collections, items and their description."""
