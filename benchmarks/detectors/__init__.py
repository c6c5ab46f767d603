"""How fast a detector looks through windows and a whole ortho, beside other programs with the same weights."""
