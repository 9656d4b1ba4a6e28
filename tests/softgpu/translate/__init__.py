"""PTX to Python: the translator, and a file for each family of instructions."""
