"""What was tried to break rmtlib: `make stress`. Faults at drawn places, each trial of which must lose nothing."""
