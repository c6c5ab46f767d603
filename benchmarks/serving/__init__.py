"""How fast a city of millions of assets is served, beside the field's servers and plain PostGIS on the same points."""
