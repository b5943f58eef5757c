"""From records to figures, tables, verdicts and pages. Nothing here trains, and nothing here knows a result."""
