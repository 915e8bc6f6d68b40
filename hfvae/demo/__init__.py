"""What app.py is made of: the models on its menu, what visitors send, and pictures to scrub."""
