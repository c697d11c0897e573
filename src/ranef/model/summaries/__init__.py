"""Linear models of summaries: what data tell a model, without their rows, to add and to keep."""
