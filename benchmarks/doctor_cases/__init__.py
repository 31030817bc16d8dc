"""Trainings as people write them: sick ones with what ails them, and healthy ones."""
