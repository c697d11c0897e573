"""Types that many rooms share."""
