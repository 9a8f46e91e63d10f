"""Names that the loop gives to parts of a step, by which a profile tells them apart."""

RECOMPUTE_SCOPE = "gnomon::recompute"
