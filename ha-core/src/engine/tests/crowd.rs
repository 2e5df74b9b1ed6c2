//! Scenarios of crowd.
