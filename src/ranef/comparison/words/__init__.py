"""What a comparison says in words: the verdict, and the legend of its table."""
