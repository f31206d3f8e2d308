"""What comes from outside and what is left behind: checked places, plain text, whole files."""
