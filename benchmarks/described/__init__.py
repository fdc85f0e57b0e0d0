"""What is asked of every loss, how it is answered, and the text of the page around the tables."""
