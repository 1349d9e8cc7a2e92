"""Results: from the records of runs to tables, figures and reports."""
