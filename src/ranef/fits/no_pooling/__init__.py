"""What the rows of each group say by themselves, beside what the model says of the group."""
