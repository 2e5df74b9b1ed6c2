//! Scenarios of chaos.
