"""Whoever acts: Hugging Face models, scripts, chance, people."""
