"""The pages: templates, styles and scripts; no code but this line."""
