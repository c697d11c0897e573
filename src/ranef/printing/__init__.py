"""What is shown: digits of numbers, pages of text and tables, their forms as text or markup."""
