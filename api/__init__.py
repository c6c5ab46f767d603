"""The doors: HTTP, command line and web page. They parse, call one use case, and render."""
