"""How fast imagery becomes observations, beside bare inference and SAHI."""
