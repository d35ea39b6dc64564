"""The pocket models: their world in plain Python, their curriculum, their training program, their weights."""
