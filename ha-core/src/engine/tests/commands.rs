//! Scenarios of commands.
