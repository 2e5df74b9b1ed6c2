//! Scenarios of faults.
