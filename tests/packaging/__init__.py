"""What is handed out: the wheel and the sdist, and the files by which machines run them."""
