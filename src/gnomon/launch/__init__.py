"""Start ranks and watch over them."""
