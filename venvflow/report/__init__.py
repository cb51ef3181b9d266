"""``venvflow report``: gathers what the other commands answer, and makes one page of it."""
