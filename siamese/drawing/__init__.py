"""What the reports of every room share: figures, HTML pages, lines of text."""
