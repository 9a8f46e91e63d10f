"""One file per verb; everything heavy is imported when the verb runs."""
