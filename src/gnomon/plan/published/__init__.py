"""Published training results: what each row says, as nouns, and how well the planner predicts it."""
