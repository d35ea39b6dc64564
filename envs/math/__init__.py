"""Maths as an environment: questions with exact checking. Knows no models."""
